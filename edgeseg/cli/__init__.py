"""The command line: parse, call a verb of `edgeseg.workflow`, print. Nothing else happens here."""
