"""The test suites of other projects, with the middleware outermost in every application that they
build.
"""
