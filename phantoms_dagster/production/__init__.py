"""Makes videos: the runner, the planner and one use case for each kind of stage. Ports are passed in as arguments."""
