"""What logs a training beside `history.csv`, where it is asked for.

`DSCPP_TRACK=tensorboard,mlflow` asks. It is a variable and no setting: it changes no
result, and reaches every process and job that makes runs.
"""

from __future__ import annotations

import os
from typing import Any

from data_io.errors import InputError
from data_io.files import schema
from pipelines.environment import installed
from pipelines.runs import run as runs

VARIABLE = "DSCPP_TRACK"
# What each needs; Keras writes TensorBoard's files with TensorFlow on every backend.
_NEEDS = {"tensorboard": ("tensorboard", "tensorflow"), "mlflow": ("mlflow",)}


def asked() -> list[str]:
    """Which of tensorboard and mlflow are asked for; looked for, none imported.

    Raises:
        InputError: another name, or a package that is not installed.
    """
    text = os.environ.get(VARIABLE, "")
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not set(names) <= set(_NEEDS):
        raise InputError(
            f"{VARIABLE}: expected any of {', '.join(_NEEDS)}, received {text!r}"
        )
    installed.require(*(module for name in names for module in _NEEDS[name]))
    return names


def watchers(run: runs.Run) -> list[Any]:
    """The callbacks of what is asked for; a run that goes on goes on in its logs.

    Raises:
        InputError: as `asked`; or MLflow takes no run.
    """
    names, found = asked(), list[Any]()
    if "tensorboard" in names:
        import keras

        folder = str(run.path("tensorboard"))
        found.append(keras.callbacks.TensorBoard(folder, write_graph=False))
    if "mlflow" in names:
        found.append(_mlflow(run))
    return found


def _mlflow(run: runs.Run) -> Any:
    """MLflow's own callback, on the run there that belongs to this one."""
    import mlflow
    import mlflow.keras

    kept = run.path("mlflow.json")
    known = schema.recall(kept, dict[str, str]) or {}
    about = {key: run.record[key] for key in ("dataset", "preset", "loss", "gamma")}
    mlflow.end_run()  # that of a training before, in the same process
    try:
        begun = mlflow.start_run(known.get("run_id"), run_name=run.name)
        mlflow.log_params({**about, "seed": run.record["seed"]})
    except mlflow.MlflowException as error:
        raise InputError(
            f"{VARIABLE}: expected MLflow to take this run, found: {error}. Check "
            f"MLFLOW_TRACKING_URI; where the run there was deleted, delete {kept}"
        ) from error
    runs.write_json(kept, {"run_id": begun.info.run_id})
    return mlflow.keras.MlflowCallback()
