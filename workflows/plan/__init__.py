"""The plan of a run: its model, and how the layers of a Workspace, a site, an environment and flags become one."""
