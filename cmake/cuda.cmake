# The CUDA toolkit, where there is one: MODELFORGE_CUDA AUTO (use it when found), ON (demand it), OFF.
# Looked for in MODELFORGE_CUDA_ROOT, CUDA_HOME, the PATH, /usr/local/cuda, and, when demanded, what `ops/setup cuda`
# laid out: nobody else is to wait for nvcc because that was run once.
# Sources are compiled by nvcc through custom commands and linked as plain objects with the static CUDA runtime, so
# that programs stay C programs, start without a driver, and are compiled by the compiler cache like the rest.
include_guard()

set(MODELFORGE_CUDA AUTO CACHE STRING "Compute on NVIDIA GPUs: AUTO (where a toolkit is found), ON or OFF")
set(MODELFORGE_CUDA_ROOT "" CACHE PATH "The CUDA toolkit (12.8 or later); empty: look for it")
set(MODELFORGE_CUDA_ARCHITECTURES "75;80;86;89;90a;100;120" CACHE STRING "Compute capabilities to compile for")

set(MODELFORGE_CUDA_FOUND OFF)
if(NOT MODELFORGE_CUDA STREQUAL "OFF")
  if(DEFINED ENV{MODELFORGE_CACHE})
    set(modelforge_cache "$ENV{MODELFORGE_CACHE}")
  else()
    set(modelforge_cache "$ENV{HOME}/.cache/modelforge")
  endif()
  set(modelforge_laid_out "")
  if(MODELFORGE_CUDA STREQUAL "ON")
    set(modelforge_laid_out "${modelforge_cache}/cuda/bin")
  endif()
  find_program(MODELFORGE_NVCC nvcc
    HINTS "${MODELFORGE_CUDA_ROOT}/bin" "$ENV{CUDA_HOME}/bin"
    PATHS /usr/local/cuda/bin ${modelforge_laid_out})
  if(MODELFORGE_NVCC)
    file(REAL_PATH "${MODELFORGE_NVCC}" modelforge_nvcc_real)
    cmake_path(GET modelforge_nvcc_real PARENT_PATH modelforge_nvcc_folder)
    cmake_path(GET modelforge_nvcc_folder PARENT_PATH modelforge_cuda_root)
    find_library(MODELFORGE_CUDART cudart_static NO_DEFAULT_PATH
      HINTS "${modelforge_cuda_root}/lib64" "${modelforge_cuda_root}/lib"
            "${modelforge_cuda_root}/targets/x86_64-linux/lib")
    find_path(MODELFORGE_CUDA_INCLUDE cublasLt.h NO_DEFAULT_PATH
      HINTS "${modelforge_cuda_root}/include" "${modelforge_cuda_root}/targets/x86_64-linux/include")
    if(MODELFORGE_CUDART AND MODELFORGE_CUDA_INCLUDE)
      set(MODELFORGE_CUDA_FOUND ON)
      # Fused attention: headers alone, both libraries are opened at run time.
      find_path(MODELFORGE_CUDNN_INCLUDE cudnn.h HINTS "${MODELFORGE_CUDA_INCLUDE}")
      find_path(MODELFORGE_CUDNN_FRONTEND cudnn_frontend.h HINTS "${MODELFORGE_CUDA_INCLUDE}")
      find_path(MODELFORGE_NVRTC_INCLUDE nvrtc.h HINTS "${MODELFORGE_CUDA_INCLUDE}")
      cmake_path(GET MODELFORGE_CUDART PARENT_PATH MODELFORGE_CUDA_LIBRARIES)
    endif()
  endif()
  if(NOT MODELFORGE_CUDA_FOUND AND MODELFORGE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "MODELFORGE_CUDA is ON, but no CUDA toolkit with nvcc, cudart_static and cublasLt.h was found: "
                        "set MODELFORGE_CUDA_ROOT, or run ops/setup cuda")
  endif()
endif()
if(MODELFORGE_CUDA_FOUND)
  message(STATUS "CUDA: ${MODELFORGE_NVCC} for ${MODELFORGE_CUDA_ARCHITECTURES}")
  if(MODELFORGE_CUDNN_INCLUDE AND MODELFORGE_CUDNN_FRONTEND AND MODELFORGE_NVRTC_INCLUDE)
    set(MODELFORGE_CUDNN_FOUND ON)
  else()
    set(MODELFORGE_CUDNN_FOUND OFF)
    message(STATUS "CUDA: without cudnn.h, cudnn_frontend.h and nvrtc.h attention is computed by our own kernels only")
  endif()
else()
  message(STATUS "CUDA: none (${MODELFORGE_CUDA}); the trainer computes on the CPU only")
endif()

# modelforge_cuda_sources(TARGET FILE...): compiles .cu files of this folder into TARGET. `90a` and the like are code
# for that chip alone; the last architecture is also kept as PTX when it is a plain one, for chips to come.
function(modelforge_cuda_sources target)
  set(code)
  foreach(architecture IN LISTS MODELFORGE_CUDA_ARCHITECTURES)
    list(APPEND code -gencode=arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  list(GET MODELFORGE_CUDA_ARCHITECTURES -1 last)
  if(last MATCHES "^[0-9]+$")
    list(APPEND code -gencode=arch=compute_${last},code=compute_${last})
  endif()
  foreach(source IN LISTS ARGN)
    set(object "${CMAKE_CURRENT_BINARY_DIR}/${source}.o")
    add_custom_command(OUTPUT "${object}"
      COMMAND ${CMAKE_C_COMPILER_LAUNCHER} "${MODELFORGE_NVCC}" -std=c++17 -O3 ${code}
              "$<IF:$<BOOL:${MODELFORGE_WERROR}>,-Werror=all-warnings,-DMF_WARNINGS_ARE_NO_ERRORS>"
              -Xcompiler=-fPIC,-fno-exceptions,-fno-threadsafe-statics "-I${PROJECT_SOURCE_DIR}"
              -MD -MF "${object}.d" -c "${CMAKE_CURRENT_SOURCE_DIR}/${source}" -o "${object}"
      DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${source}" DEPFILE "${object}.d"
      COMMENT "Building CUDA object ${source}" VERBATIM)
    target_sources(${target} PRIVATE "${object}")
    set_source_files_properties("${object}" PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  endforeach()
endfunction()

# modelforge_cuda_host_source(TARGET FILE): a C++ file of this folder whose headers throw exceptions, compiled by nvcc's
# host compiler.
function(modelforge_cuda_host_source target source)
  set(object "${CMAKE_CURRENT_BINARY_DIR}/${source}.o")
  add_custom_command(OUTPUT "${object}"
    COMMAND ${CMAKE_C_COMPILER_LAUNCHER} "${MODELFORGE_NVCC}" -std=c++17 -O1
            "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra,$<IF:$<BOOL:${MODELFORGE_WERROR}>,-Werror,-Wall>"
            -DCUDNN_FRONTEND_SKIP_JSON_LIB -DNDEBUG "-I${PROJECT_SOURCE_DIR}" -isystem "${MODELFORGE_CUDNN_FRONTEND}"
            -isystem "${MODELFORGE_CUDNN_INCLUDE}" -isystem "${MODELFORGE_NVRTC_INCLUDE}"
            -MD -MF "${object}.d" -c "${CMAKE_CURRENT_SOURCE_DIR}/${source}" -o "${object}"
    DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${source}" DEPFILE "${object}.d"
    COMMENT "Building C++ object ${source}" VERBATIM)
  target_sources(${target} PRIVATE "${object}")
  set_source_files_properties("${object}" PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  target_link_libraries(${target} PUBLIC stdc++)
endfunction()
