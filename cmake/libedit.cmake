# An optional part: libedit, with which gptvq chat edits lines. The target PkgConfig::LIBEDIT exists when it is to be used.
set(libedit_missing "switched off by GPTVQ_LIBEDIT")
if(GPTVQ_LIBEDIT)
  pkg_check_modules(LIBEDIT QUIET IMPORTED_TARGET libedit)
  set(libedit_missing "not installed (libedit-dev)")
endif()
if(TARGET PkgConfig::LIBEDIT)
  message(STATUS "libedit: yes (${LIBEDIT_VERSION})")
else() # NOTICE: to be seen when the rest of the configuration is not
  message(NOTICE "-- libedit: no, ${libedit_missing}: gptvq chat reads lines without editing and history")
endif()
