"""What crosses a container's wall: the stage's task, its events, its record."""
