"""From a video file to decoded, timed, resized frames."""
