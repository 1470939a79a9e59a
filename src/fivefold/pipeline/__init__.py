"""From recipe to finished run, stage by stage."""
