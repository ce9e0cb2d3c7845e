"""What is done with a trained generator's latents: loops, style mixing, directions, projection, blending of two models."""
