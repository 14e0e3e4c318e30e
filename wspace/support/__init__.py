"""What every room needs and none owns: errors, files, seeds, progress, processes, the settings of each stage.

It imports nothing of wspace.
"""
