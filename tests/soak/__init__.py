"""Random faults under steady load over real processes, with every answer judged by what was right
at its time.
"""
