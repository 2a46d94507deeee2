"""The commands of `firn`, by subject. Heavy modules are imported by the command that needs them: help is quick so."""
