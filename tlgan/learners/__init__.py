"""Learners: what is trained and how one step goes. A learner owns networks, phases, optimisers; the loop owns time."""
