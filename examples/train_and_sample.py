"""Train a small ARM on handwritten digits and draw exact samples from it, with arm_core alone (about half a minute)."""

import sys

import torch

from arm_core import ancestral_sample, predictive_sample, sample_noise, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.data import load_dataset
from arm_core.forecasters import fixed_point
from arm_core.training import Training, TrainingConfig, evaluate, fit

iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 400
data = load_dataset("digits")
torch.manual_seed(0)
arm = PixelCNN(data.layout, PixelCNNConfig(resnets=1, filters=20, dropout=0.0))
config = TrainingConfig(iterations=iterations, batch_size=32, learning_rate=2e-3, lr_decay=0.998)
for metrics in fit(Training(arm, None, config, seed=0), data.split("train")):
    if metrics.step % 50 == 0:
        print(f"step {metrics.step}: {metrics.figures['train_bits_per_dim']:.3f} bits/dim")
print(f"test: {evaluate(arm, None, data.split('test'))[0]:.3f} bits/dim")
save_arm(arm, sys.argv[2] if len(sys.argv) > 2 else "runs/digits-arm")

noise = sample_noise(data.layout, seed=10, sample_ids=range(4))
trace = predictive_sample(arm, noise, fixed_point)
print(f"{trace.arm_calls.tolist()} ARM calls, {data.layout.dims} by ancestral sampling")
print("the same samples:", torch.equal(trace.x, ancestral_sample(arm, noise).x))
for row in data.layout.unflatten(trace.x)[0, 0].tolist():
    print("".join(" .:-=+*#%@"[value * 9 // 16] * 2 for value in row))
