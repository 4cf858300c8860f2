"""What strangers say in calls, and the error that each must get."""

FORGED_TOKENS = ("x",)
