"""Adversarial objectives and penalties. An objective is two functions of logits; a penalty is a term of D's loss."""
