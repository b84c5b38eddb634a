"""What a run left on disk, judged by its goals: the table, results.json and the page."""
