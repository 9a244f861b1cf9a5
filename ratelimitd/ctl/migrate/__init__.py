"""`ratelimitctl migrate`: the Perl daemon's table becomes ours, in place, and with `--back` the Perl daemon's again."""
