"""Data steps: how an estimate is made to agree with what was measured."""
