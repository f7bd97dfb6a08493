"""The tasks of the console command, one script each."""
