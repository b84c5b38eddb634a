"""Public data sets, fetched from where their authors put them: `edgeseg data get NAME`."""
