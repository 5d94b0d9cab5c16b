from hypothesis import settings

settings.register_profile("nbiot", deadline=None)
settings.load_profile("nbiot")
