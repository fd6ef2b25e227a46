"""DSC++ in plain Keras: `compile` and `fit`, on any backend.

The network ends in logits and the labels are class indices, so there is no softmax
layer and nothing is made one-hot. Run: `python recipes/keras_fit.py`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import layers

import losses


def discs(count: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw noisy images of a bright and a dark disc.

    Args:
        count: number of images.
        size: rows and columns, in pixels.
        seed: of the random numbers.

    Returns:
        Images, (count, size, size, 1), and class indices, (count, size, size): 0
        background, 1 bright, 2 dark.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    labels = np.zeros((count, size, size), dtype="int32")
    for label in labels:
        for index in (1, 2):
            row, column = random.uniform(8, size - 8, size=2)
            label[(rows - row) ** 2 + (columns - column) ** 2 < 36] = index
    brightness = np.array([0.0, 1.0, -1.0])[labels]
    images = brightness + random.normal(scale=0.5, size=labels.shape)
    return images[..., None].astype("float32"), labels


def network() -> keras.Model:
    """Make a small network with three classes that returns logits."""
    inputs = keras.Input((None, None, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    skip = x
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(8, 2, strides=2, activation="relu")(x)
    x = layers.Concatenate()([x, skip])
    return keras.Model(inputs, layers.Conv2D(3, 1)(x))


def main(epochs: int = 5) -> list[float]:
    """Train, save and load the network; return the loss of each epoch."""
    keras.utils.set_random_seed(0)
    images, labels = discs(32)
    model = network()
    model.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss=losses.by_name("DSC++", from_logits=True, from_indices=True),
    )
    history = model.fit(images, labels, batch_size=4, epochs=epochs, verbose=0)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        model = keras.models.load_model(path)  # no custom_objects: losses is imported
    probabilities = keras.ops.softmax(model.predict(images[:1], verbose=0))
    largest = float(keras.ops.max(probabilities))
    print(f"largest probability of the first image: {largest:.3f}")
    return history.history["loss"]


if __name__ == "__main__":
    for epoch, value in enumerate(main(), start=1):
        print(f"epoch {epoch}: loss {value:.4f}")
