"""How fast: what `edgeseg run`, `bench` and `tune` measure, here or on a device."""
