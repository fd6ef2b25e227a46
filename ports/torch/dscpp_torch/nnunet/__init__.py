# SPDX-License-Identifier: Apache-2.0
"""The folder for `nnUNet_extTrainer`: `dscpp_trainers` holds the trainers."""
