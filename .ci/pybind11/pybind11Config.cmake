# For machines without pybind11: the headers that ship with torch, and of pybind11's functions the one that is used.
execute_process(
  COMMAND ${Python_EXECUTABLE} -c "import pathlib, torch; print(pathlib.Path(torch.__file__).parent / 'include', end='')"
  OUTPUT_VARIABLE pybind11_INCLUDE_DIR COMMAND_ERROR_IS_FATAL ANY)

function(pybind11_add_module name)
  cmake_parse_arguments(PARSE_ARGV 1 module "MODULE;NO_EXTRAS" "" "")
  Python_add_library(${name} MODULE WITH_SOABI ${module_UNPARSED_ARGUMENTS})
  target_include_directories(${name} SYSTEM PRIVATE ${pybind11_INCLUDE_DIR})
endfunction()
