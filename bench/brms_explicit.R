# Every firm a parameter, as a formula: brms, which samples with Stan. One effect for all adopters alone.
suppressMessages({
  library(brms)
  library(rstan)
})
job <- jsonlite::fromJSON(commandArgs(TRUE)[1])
finish <- function(facts) {
  writeLines(jsonlite::toJSON(facts, auto_unbox = TRUE, digits = NA), paste0(job$out, ".json"))
  quit(status = 0)
}
# Debian's packages of Boost and Eigen are the system's
if (!dir.exists(rstan_options("boost_lib"))) rstan_options(boost_lib = "/usr/include")
if (!dir.exists(rstan_options("eigen_lib"))) rstan_options(eigen_lib = "/usr/include/eigen3")

frame <- read.csv(job$data)
frame$unit <- factor(frame$unit)
columns <- names(job$prior_sd)
normal <- function(sd) sprintf("normal(0, %.10g)", sd)
priors <- c(
  do.call(c, lapply(columns, function(name) set_prior(normal(job$prior_sd[[name]]), class = "b", coef = name))),
  set_prior(sprintf("constant(%.10g)", job$wide), class = "sd", group = "unit"),
  set_prior(sprintf("lognormal(0, %.10g)", job$sigma_sd), class = "sigma")
)
formula <- as.formula(paste("y ~ 0 +", paste(columns, collapse = " + "), "+ (1 | unit)"))
seconds <- function(code) system.time(code)[["elapsed"]]
compiling <- seconds(fit <- suppressMessages(suppressWarnings(
  brm(formula, frame, prior = priors, chains = 0, refresh = 0)
)))

# what fits into the budget: nothing can be interrupted here, so that the plan is all there is
machine <- get_stanmodel(fit$fit)
told <- standata(fit)
probe <- suppressWarnings(sampling(machine, told, chains = 1, iter = 1, warmup = 0, refresh = 0, seed = job$seed))
point <- rep(0.1, get_num_upars(probe))
gradient <- median(replicate(20, seconds(for (i in 1:5) grad_log_prob(probe, point)) / 5))
affordable <- job$budget * job$cores / (job$chains * max(gradient, 1e-6))
least <- (job$least_tune + job$least_draws) * job$least_steps
if (affordable < least) {
  finish(list(reason = sprintf(
    "%g s are too few for %d tuning and %d kept iterations a chain at %.2g ms a gradient: give a budget of %.0f s at least",
    job$budget, job$least_tune, job$least_draws, 1000 * gradient, ceiling(job$budget * least / affordable)
  )))
}
iterations <- affordable / job$steps
tune <- floor(min(max(iterations / 2, job$least_tune), job$tune))
draws <- floor(min(max(iterations - tune, job$least_draws), job$draws))
spent <- seconds(drawn <- suppressWarnings(sampling(
  machine, told,
  chains = job$chains, cores = job$cores, iter = tune + draws, warmup = tune, refresh = 0, seed = job$seed,
  pars = c("b", "sigma")
)))
found <- as.array(drawn) # iteration, chain, parameter
table <- data.frame(
  chain = rep(seq_len(job$chains), each = draws), draw = rep(seq_len(draws), job$chains),
  matrix(found, ncol = dim(found)[3])
)
names(table)[-(1:2)] <- c(colnames(told$X), "sigma", "lp__")
write.csv(table, paste0(job$out, ".csv"), row.names = FALSE)
finish(list(compile = compiling, sample = spent, tune = tune, draws = draws, chains = job$chains))
