"""How a video is made: the runner, the planner and one use case per kind of stage. Ports come in as arguments."""
