"""Training: settings, augmentation, the loop, evaluation, and the stage that writes a model folder. Needs torch."""
