"""What BORIS makes of a project: run by its own interpreter with `-i`, which keeps it from looking for a player."""

import json
import sys

from boris import project_functions

_, _, path = sys.argv
_, _, project, message = project_functions.open_project_json(path)
answer = {
    "opened": message,
    "integrity": project_functions.check_project_integrity(project, "hh:mm:ss", path, media_file_available=True),
    "states": [
        project_functions.check_state_events_obs(name, project["behaviors_conf"], observation, "hh:mm:ss")
        for name, observation in project["observations"].items()
    ],
    "project": project,
}
print(json.dumps(answer, default=float))  # decimals, as BORIS itself saves them
