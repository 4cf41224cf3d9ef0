"""Fit a model to a panel: `python -m src.fit model=hier data=synthetic`.

data ─▶ exposures ─▶ design ─▶ collapse ─▶ model ─▶ posterior ─▶ estimands ─▶ comparison ─▶ figures, report
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from src.command import HOME, UserError, command, folder_of
from src.config import Config, exposure_entries

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import xarray as xr

    from models.inputs import Priors
    from src.answer import Answer
    from src.aside import Begin
    from src.collapse import Collapsed
    from src.design import Regression
    from src.errors import Errors
    from src.kernel import Learned
    from src.panel import Panel
    from src.report import Origin
    from src.scrutiny import Scrutiny
    from src.system import Equation
    from src.twins import Twins

TABLES = ("agreement", "powers", "weights", "bacon", "sensitivity", "predictive", "channels")  # that not every run has
TABLES_ONLY = ("engine", "prob", "estimators", "figures", "progress", "refit", "replace")
STATEMENTS = ("name", "att", "spread", "sure")  # of a prior, that are no scales
NOT_OF_BUILD = ("name", "build", "beside", "answer", "most")
PATHS = ("path", "package", "file", "loader", "parameters")


def fit(config: Config) -> int:
    """Run the pipeline and write the run folder; 0 where the sampler's diagnostics pass, else 3.

    Classical estimators need the panel alone: a second process runs them while the model is compiled and sampled.
    """
    from src.aside import helper

    with helper(config.sampler.cores, "src.twins") as begin:
        return pipeline(config, begin)


def pipeline(config: Config, begin: Begin) -> int:
    """The stages, one after the other; `begin` gives work to the second process, before anything that can wait."""
    from src.stopwatch import stopwatch

    seconds: dict[str, float] = {}
    with ExitStack() as stack, stopwatch(seconds, "total"):
        with stopwatch(seconds, "load"):
            order_of(config)  # before anything is read
            regression, shares, notes = rows_of(config, stack)
        twins = None
        if regression.blocks is None:
            counts = counts_events(config.likelihood)
            twins = begin("src.twins.twins", regression.panel, shares, config.prob, twins_of(config), counts)
        diagnostics, folder, found, beside = answered(config, regression, shares, notes, twins, seconds)
    from src import terminal, trace

    trace.write(as_json(diagnostics | {"seconds": seconds}), folder / "diagnostics.json")
    write_settings(config, folder)
    terminal.closing(found.table, beside, diagnostics | {"seconds": seconds}, folder)
    return 0 if diagnostics["ok"] else 3


def answered(
    config: Config,
    regression: Regression,
    shares: dict[str, np.ndarray],
    notes: list[str],
    twins: Callable[[], Twins] | None,
    seconds: dict[str, float],
) -> tuple[dict, Path, Answer, Scrutiny]:
    """From columns to the run folder, all but the record of its settings and its seconds.

    `twins` waits for what classical estimators find; they follow from sums where it is not given.
    """
    from src import diagnose, estimand, figure, from_sums, papers, report, terminal, trace
    from src.asked import asked
    from src.scrutiny import Given, scrutinise, together
    from src.stopwatch import stopwatch
    from src.system import first

    settings = posterior_settings(config)
    run = trace.run_id(settings, regression.panel.sha256)
    folder = claimed(folder_of(run, config), run, config.refit)
    with stopwatch(seconds, "collapse"):
        errors = errors_of(config, regression)
        system = collapsed_system(config, regression, shares, errors)
        collapsed = first(system).collapsed
    notes = [*notes, *dict.fromkeys(note for equation in system for note in equation.collapsed.notes)]
    terminal.opening(regression, notes, assumption_of(config))
    tree = kept_or_sampled(config, system, errors, run, folder, seconds)
    with stopwatch(seconds, "estimand"):
        found = answer_of(config, tree, system, errors)
    if "estimand" not in tree.children:
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = estimand.dataset(found.scales["outcome"])
        trace.save(trace.with_estimands(tree, outcomes), folder / "posterior.nc")
    with stopwatch(seconds, "figure"):
        chains = figure.draw_chains(folder / "figures", tree) if config.figures else []
    with stopwatch(seconds, "compare"):
        classical = from_sums.twins(collapsed, twins_of(config), config.prob) if twins is None else twins()
        facts = (classical, errors, config.prior.lead, config.prob, config.seed)
        beside = scrutinise(Given(found, trace.theta(tree, "prior"), trace.densities(tree), collapsed, *facts))
        studies = Path(HOME, "calibrate", config.data.name, config.model.name)
        since = asked(folder, studies, run, settings, regression.panel.sha256)
        beside = together(since, beside)
    tables = {"estimands": found.table, "parameters": diagnose.parameters(tree)} | beside.tables
    for name in set(TABLES) - set(tables):  # of an earlier run of other settings
        (folder / f"{name}.csv").unlink(missing_ok=True)
    for name, table in tables.items():
        trace.write(table.to_csv(index=False), folder / f"{name}.csv")
    with stopwatch(seconds, "figure"):
        pictures, lacking = draw(config, folder / "figures", tree, found.table, beside, chains)
    lacking = [*diagnose.attempts(tree), *beside.said.get("handled", ()), *lacking]
    terminal.handled(lacking)
    nuisance = {"likelihood": config.likelihood.name, "s": collapsed.s}
    nuisance |= collapsed.nuisance.record(collapsed.s, len(regression.frame.periods))
    further = [equation for equation in system if equation.name]
    if further:
        nuisance["equations"] = {
            one.name: {"likelihood": config.likelihood.name, "s": one.collapsed.s}
            | one.collapsed.nuisance.record(one.collapsed.s, len(regression.frame.periods))
            for one in further
        }
    notes = [*notes, *lacking]
    diagnostics = diagnose.diagnose(tree, found.table) | {"nuisance": nuisance, "notes": notes} | beside.record
    with stopwatch(seconds, "report"):
        caption = f"{config.data.name}, model {config.model.name}: {100 * config.prob:g}% intervals"
        papers.write_tables(folder / "tables", found.table, beside.comparison, caption)
        about = (config.data.name, config.model.name, collapsed.regression)
        page = report.render(*about, found.table, beside, diagnostics, pictures, origin_of(config, run, folder))
        trace.write(page, folder / "report.html")
    return diagnostics, folder, found, beside


def rows_of(config: Config, stack: ExitStack) -> tuple[Regression, dict, list[str]]:
    """The columns of the panel that `data` names, its exposures on the rows, and what was handled on the way.

    Where the rows are to stay in files, these go when the stack is closed, and the exposures stay with them.
    """
    from src import stream
    from src.design import build_design

    if not stream.is_streamed(config.data, config.engine.rows_in_memory):
        panel, shares, notes = load(config)
        regression, left_out = build_design(panel, shares, needs_units(config))
        return regression, shares, [*notes, *left_out]
    from src import engine, terminal

    if counts_events(config.likelihood):
        raise UserError(
            f"likelihood={config.likelihood.name}: counts need all rows in memory: raise engine.rows_in_memory, or use "
            "likelihood=gaussian"
        )
    if config.data.derive:
        raise UserError(
            "data.derive: indices compare rows of all units, so that all need to be in memory: raise "
            "engine.rows_in_memory, or compute the columns beforehand"
        )
    tell = stack.enter_context(terminal.following(config.progress and terminal.is_person()))
    scratch = Path(stack.enter_context(TemporaryDirectory(prefix="hierdid-", dir=config.engine.scratch)))
    work = stack.enter_context(engine.opened(config.engine))
    regression, notes = stream.streamed(config.data, work, scratch, config.engine.block_rows, needs_units(config), tell)
    return regression, {}, notes


def load(config: Config) -> tuple[Panel, dict, list[str]]:
    """The panel that `data` names, its exposures on the rows, and what was handled on the way."""
    from src.counts import without_events, without_part
    from src.exposure import row_shares
    from src.validate import check_counts, check_parts

    panel = resolve(config.data.loader)(replace(config.data, **others_of(config)))
    if counts_events(config.likelihood):
        check_counts(panel, config.data.transform, config.data.weights)
        check_parts(panel)
    shares, notes = row_shares(panel)
    silent = [*without_events(panel), *without_part(panel)] if counts_events(config.likelihood) else []
    return panel, shares, [*panel.notes, *silent, *notes]


def others_of(config: Config) -> dict[str, list[str]]:
    """Outcomes beside the first: those of a setting that the model does not use are left alone."""
    settings = ("mediators", "outcomes")
    return {
        name: getattr(config.data, name) if name == getattr(config.model, "beside", "") else [] for name in settings
    }


def resolve(dotted: str) -> Any:
    """The function that a dotted name in a YAML file stands for."""
    module, _, name = dotted.rpartition(".")
    return getattr(import_module(module), name)


def collapsed_system(
    config: Config, regression: Regression, shares: dict[str, np.ndarray], errors: Errors
) -> tuple[Equation, ...]:
    """The equations of the model, collapsed: one of data.outcome, and one of each other outcome that it has."""
    from src.collapse import collapse
    from src.system import collapse_all, collapse_counts, only

    order = order_of(config)
    if len(order) == 1:
        return only(collapse(regression, errors, unpooled(config, regression), has_units(config)))
    units = needs_units(config)
    if errors.events:
        return collapse_counts(regression.panel, shares, errors, order[1], units)
    alike = config.model.beside == "outcomes"
    return collapse_all(regression.panel, shares, errors, order, units, has_units(config), alike)


def order_of(config: Config) -> tuple[str, ...]:
    """Names of all outcomes in the order of their equations, "" for data.outcome.

    Mediators come before it, others after.

    Raises
    ------
    UserError
        A model of several outcomes, and nothing but data.outcome; or what such a model cannot do yet.
    """
    from src.stream import is_streamed

    setting = getattr(config.model, "beside", "")
    if not setting:
        return ("",)
    others = tuple(getattr(config.data, setting))
    which = f"model={config.model.name}"
    if not others:
        raise UserError(f"{which} needs data.{setting}: name the columns, as in 'data.{setting}=[first, second]'")
    if counts_events(config.likelihood) and setting == "mediators":
        raise UserError(
            f"{which}: outcomes are not counts here: use likelihood=gaussian, or model=hier for each of them"
        )
    if counts_events(config.likelihood) and len(others) > 1:
        raise UserError(
            f"{which}: of counts, one outcome stands beside data.outcome, a part of it, and data.outcomes names "
            f"{len(others)}: name one, or use likelihood=gaussian"
        )
    if is_streamed(config.data, config.engine.rows_in_memory):
        raise UserError(f"{which}: all rows need to be in memory: raise engine.rows_in_memory")
    if any(entry.kernel == "learned" for entry in exposure_entries(config.data).values()):
        raise UserError(f"{which}: a learned kernel is only there for one outcome: give the kernel a scale")
    return (*others, "") if setting == "mediators" else ("", *others)


def assumption_of(config: Config) -> str:
    """What the answer of the model rests on beyond parallel trends; empty where there is nothing."""
    dotted = getattr(config.model, "answer", "")
    return str(resolve(f"{dotted.rpartition('.')[0]}.ASSUMPTION")) if dotted else ""


def answer_of(config: Config, tree: xr.DataTree, system: tuple[Equation, ...], errors: Errors) -> Answer:
    """The tables of the run: as the model has them, or by averages of effects alone."""
    from src.answer import answer

    dotted = getattr(config.model, "answer", "")
    if dotted:
        return resolve(dotted)(tree, system, config.model, config.prob, config.seed)
    collapsed = system[0].collapsed
    return answer(tree, collapsed, errors, priors_of(config), config.model.name, config.prob, config.seed)


def errors_of(config: Config, regression: Regression) -> Errors:
    """What the likelihood allows errors to do; where no shocks are named, on the column of every exposure that varies.

    Raises
    ------
    UserError
        A shock on what is neither an exposure nor a group.
    """
    from src.errors import Errors

    asked, panel = config.likelihood.shocks, regression.panel
    known = dict.fromkeys([*panel.roster.members, *panel.groups])
    for name in asked or ():
        if name not in known:
            raise UserError(
                f"likelihood.shocks names {name}, which is neither an exposure nor a group: choose from "
                f"{', '.join(known) or 'none (the data have neither)'}"
            )
    shocks = classifications(panel, regression.exposures) if asked is None else asked
    return Errors(config.likelihood.serial, config.likelihood.scale, tuple(shocks), counts_events(config.likelihood))


def counts_events(likelihood: Any) -> bool:
    """Whether a likelihood is one of counts."""
    return likelihood.name.startswith("poisson")


def unpooled(config: Config, regression: Regression) -> tuple[str, ...]:
    """Blocks of tau of a model that pools nothing; none where it pools."""
    if config.model.name == "pooled":
        return ("mu",)
    if config.model.name != "nopool":
        return ()
    groups = "group_cell" if regression.design.groups else "mu"
    return ("cell",) if config.model.cells == "cohort_time" else (groups,)


def twins_of(config: Config) -> tuple[str, ...]:
    """The classical estimators that were asked for, else those that go with the likelihood."""
    from src.config import LINEAR, OF_COUNTS

    return tuple(
        (OF_COUNTS if counts_events(config.likelihood) else LINEAR) if config.estimators is None else config.estimators
    )


def classifications(panel: Panel, names: Iterable[str]) -> list[str]:
    """Those of the exposures that are built on a classification, the first of several that are built on the same.

    Without those whose levels have fixed effects in every period: nothing is left of their shocks.
    """
    from src.panel import partition

    taken = {partition(factor.code) for factor in panel.fixed.values()}
    found: dict[bytes, str] = {}
    for name in names:
        if name in panel.roster.members:
            found.setdefault(partition(panel.roster.members[name][panel.roster.position]), name)
    return [name for levels, name in found.items() if levels not in taken]


def needs_units(config: Config) -> bool:
    """Whether adopters have columns of their own: wherever units have scales of their own, so that these do not depend
    on the model, or where the model asks for them.
    """
    return config.likelihood.scale == "unit" or bool(getattr(config.model, "unit", False))


def has_units(config: Config) -> bool:
    """Whether the model gives adopters effects of their own."""
    wanted = getattr(config.model, "unit", False)
    return config.likelihood.scale == "unit" if wanted is None else bool(wanted)


def posterior_settings(config: Config) -> dict:
    """The settings that determine the posterior: all but paths, and what only tables and figures use."""
    settings = {name: value for name, value in asdict(config).items() if name not in TABLES_ONLY}
    settings["data"] = {name: value for name, value in settings["data"].items() if name not in PATHS} | others_of(
        config
    )
    settings["model"] = {name: value for name, value in settings["model"].items() if name != "most"}
    settings["sampler"] = {name: value for name, value in settings["sampler"].items() if name != "cores"}
    return settings


def claimed(folder: Path, run: str, refit: bool) -> Path:
    """The folder, if it is free or holds this very run.

    Raises
    ------
    UserError
        It holds another run.
    """
    from src.trace import kept_run_id

    other = kept_run_id(folder / "posterior.nc")
    if other not in (None, run) and not refit:
        raise UserError(
            f"{folder} holds another run ({other}, this one is {run}): give another hydra.run.dir, or refit=true to "
            "replace it"
        )
    return folder


def kept_or_sampled(
    config: Config, system: tuple[Equation, ...], errors: Errors, run: str, folder: Path, seconds: dict[str, float]
) -> xr.DataTree:
    """The posterior of this run: opened where it is kept, else sampled."""
    import json

    import xarray as xr

    from src import equations, sample, terminal, trace
    from src.collapse import with_common_scale
    from src.density import densities
    from src.kernel import completed
    from src.stopwatch import stopwatch
    from src.system import first, only

    kept = folder / "posterior.nc"
    if not config.refit and trace.kept_run_id(kept) == run:
        tree = trace.load(kept)
        seconds.update(json.loads(tree.attrs["seconds"]))
        terminal.reused(folder)
        return tree
    collapsed = first(system).collapsed
    with stopwatch(seconds, "collapse"):
        learned = {"posterior": learned_kernel(config, collapsed)}
    model, rival = build_model(config, system, learned["posterior"]), None
    if len(system) == 1 and "unit_effect" in model.named_vars and errors.scale == "unit" and not errors.events:
        with stopwatch(seconds, "collapse"):
            of_rival = with_common_scale(collapsed, errors)
            learned["rival"] = learned_kernel(config, of_rival)
            rival = build_model(config, only(of_rival), learned["rival"])
    options = {name: value for name, value in asdict(config.sampler).items() if name != "name"}
    terminal.starting(config, sample.is_compiled(model, config.sampler.backend))
    spent: dict[str, float] = {}
    show = config.progress and terminal.is_person()
    sampled = sample.draw_posterior(model, rival, **options, seed=config.seed, progress=show, seconds=spent)
    seconds.update(spent)
    with stopwatch(seconds, "estimand"):
        for group, values in densities(model, sampled["posterior"].to_dataset()).items():
            sampled[group] = xr.DataTree(values)
    for group, of_group in learned.items():
        if of_group is not None:
            posterior = completed(sampled[group].to_dataset(), of_group, collapsed.regression.design, config.seed)
            sampled[group] = xr.DataTree(posterior)
    attributes = {
        "run_id": run,
        "config": posterior_settings(config),
        "data_sha256": collapsed.regression.panel.sha256,
        "code_version": trace.code_version(),
        "libraries": trace.library_versions(),
        "seed": config.seed,
        "seconds": spent,
        "diverged": sampled.attrs["diverged"],
    }
    return equations.assemble(sampled, system, config.seed, attributes)


def build_model(config: Config, system: tuple[Equation, ...], learned: Learned | None):
    """The PyMC model that `model` names, on the evidence in units of s, or on that with a learned spillover in it.

    Raises
    ------
    UserError
        Statements about effects that cannot be had; see `src.elicit`.
    """
    priors = priors_of(config)
    if config.prior.att is None and config.prior.spread is None:
        return built(config, system, learned, priors)
    from src.elicit import elicited

    if len(system) > 1 or config.model.name == "nopool":
        raise UserError(
            f"model={config.model.name}: prior.att and prior.spread are of models of one outcome with an average "
            "effect: use model=hier or pooled, or another prior"
        )
    return built(
        config,
        system,
        learned,
        elicited(config.prior, priors, system[0].collapsed, lambda one: built(config, system, learned, one)),
    )


def built(config: Config, system: tuple[Equation, ...], learned: Learned | None, priors: Priors):
    """The model under some priors; other parameters as of `build_model`."""
    options = {name: value for name, value in asdict(config.model).items() if name not in NOT_OF_BUILD}
    if "unit" in options:
        options["unit"] = has_units(config)
    if len(system) > 1:
        designs = {equation.name: equation.collapsed.regression.design for equation in system}
        each = {e.name: e.collapsed.evidence.rescale(e.collapsed.s) for e in system}
        widths = {equation.name: equation.width for equation in system}
        return resolve(config.model.build)(designs, each, widths, priors, **options)
    collapsed = system[0].collapsed
    evidence = collapsed.evidence.rescale(collapsed.s) if learned is None else learned.evidence
    return resolve(config.model.build)(collapsed.regression.design, evidence, priors, **options)


def priors_of(config: Config) -> Priors:
    """Scales of the priors, as a model takes them, but for those that follow from statements."""
    from models.inputs import Priors

    return Priors(**{name: value for name, value in asdict(config.prior).items() if name not in STATEMENTS})


def learned_kernel(config: Config, collapsed: Collapsed) -> Learned | None:
    """The evidence with a learned spillover integrated out, in units of s; None where there is none to learn."""
    from src.kernel import learn

    if collapsed.regression.surface is None:
        return None
    return learn(collapsed.evidence.rescale(collapsed.s), collapsed.regression.design, priors_of(config))


def draw(
    config: Config, folder: Path, tree: xr.DataTree, table: pd.DataFrame, beside: Scrutiny, chains: list[Path]
) -> tuple[list[Path], list[str]]:
    """The pictures of this run where they are wanted, and what could not be drawn; those of an earlier run go.

    `chains` is what has been drawn already.
    """
    from src import figure

    drawn: tuple[list[Path], list[str]] = ([], [])
    if config.figures:
        drawn = figure.draw_all(folder, tree, table, beside.comparison, beside.figures, chains)
    figure.clear(folder, drawn[0])
    return drawn


def origin_of(config: Config, run: str, folder: Path) -> Origin:
    """The command and the settings of a run, and the versions that it ran with."""
    from importlib.metadata import version

    from hydra.core.hydra_config import HydraConfig

    from src import trace
    from src.report import Origin

    typed = " ".join(shlex.quote(word) for word in HydraConfig.get().overrides.task)
    settings = [(name, str(value)) for name, value in posterior_settings(config).items()]
    known = [*settings, ("code", trace.code_version()), *trace.library_versions().items()]
    kind = (len(order_of(config)) == 1, counts_events(config.likelihood), config.prior.name)
    return Origin(f"python -m src.fit {typed}".rstrip(), run, version("hierdid"), known, str(folder), *kind)


def as_json(diagnostics: dict) -> str:
    """Diagnostics as text, seconds rounded."""
    import json

    rounded = {stage: round(value, 3) for stage, value in diagnostics["seconds"].items()}
    return json.dumps(diagnostics | {"seconds": rounded}, indent=2)


def write_settings(config: Config, folder: Path) -> None:
    """Keep the settings as composed, and the overrides as typed, in `.hydra/`."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from src import trace

    plain = OmegaConf.create(asdict(config))
    del plain["replace"]
    (folder / ".hydra").mkdir(exist_ok=True)
    trace.write(OmegaConf.to_yaml(plain), folder / ".hydra" / "config.yaml")
    overrides = OmegaConf.to_yaml(HydraConfig.get().overrides.task)
    trace.write(overrides, folder / ".hydra" / "overrides.yaml")


if __name__ == "__main__":
    command(fit)
