"""What a ModelDeployment's reconcile decides."""
