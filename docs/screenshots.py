"""Takes the pictures of this documentation from the cluster of `make demo`, with a headless Chromium.

make screenshots
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lakeloop.cli.demo import DemoError, Kubectl, address

HERE = Path(__file__).parent
SIZE = "1400,1000"
# The page is drawn by JavaScript: so much of its time passes, as fast as it can, before the picture is taken.
PAGE_MILLISECONDS = 20_000
# Nothing but the page itself is asked for anything.
OFFLINE = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")


def pages(mlflow: str, run: dict[str, dict[str, str]]) -> dict[str, str]:
    """File → address of the run's page, one of its plots, and the registered version."""
    at = f"{mlflow}/#/experiments/{run['mlflow']['experimentId']}/runs/{run['mlflow']['runId']}"
    version = f"{mlflow}/#/models/{run['model']['name']}/versions/{run['model']['version']}"
    return {
        "mlflow-run.png": at,
        "mlflow-plot.png": f"{at}/artifacts/plots/confusion_matrix.png",
        "mlflow-version.png": version,
    }


def take(chromium: str, url: str, target: Path) -> None:
    """One picture. Raises DemoError with Chromium's words."""
    with tempfile.TemporaryDirectory() as profile:
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", *OFFLINE]
        command += [f"--user-data-dir={profile}", f"--window-size={SIZE}", f"--screenshot={target}"]
        command += [f"--virtual-time-budget={PAGE_MILLISECONDS}", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode or not target.is_file():
        raise DemoError(f"chromium took no picture of {url}:\n{done.stderr[-2000:]}")


def main() -> None:
    """Takes all pictures, and says where they are."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("chromium is not on PATH: apt-get install chromium")
    kubectl = Kubectl(HERE.parent / ".lakeloop/kubeconfig")
    try:
        run = kubectl.get("trainingjob", sys.argv[1] if len(sys.argv) > 1 else "quickstart")["status"]["run"]
        for name, url in pages(address(kubectl, "mlflow", "lakeloop-platform"), run).items():
            take(chromium, url, HERE / "images" / name)
            print(f"docs/images/{name}")
    except DemoError as error:
        sys.exit(f"run `make demo` first: {error}")


if __name__ == "__main__":
    main()
