"""Many runs with one command, each in a process of its own (`dscpp run`)."""
