"""Random schedules of flips, holds, barriers and faults over real processes, judged by what an
outside client saw.
"""
