"""Jobs for Slurm: shell files to be edited by hand, and commands that look at what they do."""
