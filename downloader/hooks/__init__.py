"""What is run after a run has ended: commands of the user's own, beside the transfers."""
