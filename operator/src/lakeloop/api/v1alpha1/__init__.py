"""`lakeloop.io/v1alpha1`: TrainingJob and ModelDeployment."""

from typing import Final

GROUP = "lakeloop.io"
VERSION = "v1alpha1"
API_VERSION: Final = "lakeloop.io/v1alpha1"
