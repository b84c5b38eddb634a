"""From labelled images to the float checkpoint, and what that checkpoint answers."""
