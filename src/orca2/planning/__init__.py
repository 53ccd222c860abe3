"""What a run will cost before it starts: memory, tokens, steps, arithmetic and hours, from shapes alone."""
