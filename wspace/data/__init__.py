"""Pictures, features, tasks, and what frozen encoders share.

It may import `interfaces` and `support`.
"""
