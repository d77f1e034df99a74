"""From a suite to stage specs with keys, estimates and a plan."""
