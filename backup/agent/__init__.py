"""What runs on a server, from `inv`, from a schedule and before a deploy: one program, standard library only."""
