"""What logs a training beside `history.csv`, where it is asked for.

`DSCPP_TRACK=tensorboard,mlflow` asks. It is a variable and no setting: it changes no
result, and reaches every process and job that makes runs.
"""

import os
from typing import Any

from data_io.errors import InputError
from data_io.files import schema
from pipelines.environment import installed
from pipelines.runs import run as runs

VARIABLE = "DSCPP_TRACK"
# What each needs; Keras writes TensorBoard's files with TensorFlow on every backend.
_NEEDS = {"tensorboard": ("tensorboard", "tensorflow"), "mlflow": ("mlflow",)}


def requested() -> list[str]:
    """Return which trackers are requested: tensorboard, mlflow. Import none.

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
    """Return the callbacks of the trackers; a resumed run goes on in its logs.

    Raises:
        InputError: as `requested`; or MLflow takes no run.
    """
    trackers, callbacks = requested(), list[Any]()
    if "tensorboard" in trackers:
        import keras

        folder = str(run.path("tensorboard"))
        callbacks.append(keras.callbacks.TensorBoard(folder, write_graph=False))
    if "mlflow" in trackers:
        callbacks.append(_mlflow(run))
    return callbacks


def _mlflow(run: runs.Run) -> Any:
    """Return MLflow's callback, on the MLflow run that belongs to this run."""
    import mlflow
    import mlflow.keras

    note = run.path("mlflow.json")
    known = schema.recall(note, dict[str, str]) or {}
    settings = {key: run.record[key] for key in ("dataset", "preset", "loss", "gamma")}
    mlflow.end_run()  # that of a training before, in the same process
    try:
        begun = mlflow.start_run(known.get("run_id"), run_name=run.name)
        mlflow.log_params({**settings, "seed": run.record["seed"]})
    except mlflow.MlflowException as error:
        raise InputError(
            f"{VARIABLE}: expected MLflow to take this run, found: {error}. Check "
            f"MLFLOW_TRACKING_URI; where the run there was deleted, delete {note}"
        ) from error
    runs.write_json(note, {"run_id": begun.info.run_id})
    return mlflow.keras.MlflowCallback()
