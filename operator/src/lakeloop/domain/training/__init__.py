"""What is to be done about a TrainingJob: pure functions from what is seen to a plan."""
