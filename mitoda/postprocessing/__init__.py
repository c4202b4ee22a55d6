"""TODO postprocessing"""
