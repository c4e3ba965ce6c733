"""What a video is: values, stages, errors and ports. No I/O, no clients, no frameworks."""
