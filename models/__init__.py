"""What we believe: priors, hierarchy and likelihood as pure functions returning a PyMC model."""
