"""What a run or a study found, as tables, figures and a page."""
