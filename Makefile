# Plain GNU make. Targets:
#   make            the module, the worker and the infer tool, under build/
#   make SAN=1 ...  the same with ASan and UBSan, under build/debug
#   make SAN=tsan   the same with TSan, under build/tsan
#   make test       builds and runs the unit tests
#   make install    module, worker and tool to where nginx and people look
#   make deb        Debian packages of the last commit, under build/deb
# NGINX_SRC names an nginx source tree (configured --with-compat by us); without
# it Debian's nginx-dev is used.

CC      ?= gcc
AR      ?= ar
SAN     ?=

ifeq ($(SAN),1)
O       := build/debug
SANFLAGS:= -fsanitize=address,undefined -fno-sanitize-recover=undefined \
           -fno-omit-frame-pointer
OPT     := -O1 -g
else ifeq ($(SAN),tsan)
O       := build/tsan
# TSan does not model fences and gcc says so; what our fences order is a wake-up
# and never data, which goes by release and acquire.
SANFLAGS:= -fsanitize=thread -fno-omit-frame-pointer -Wno-tsan
OPT     := -O1 -g
else
O       := build
SANFLAGS:=
OPT     := -O2 -g
endif

# Packages are built with WERROR= by compilers that we have not seen.
WERROR  ?= -Werror
WARN    := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes \
           -Wmissing-prototypes -Wpointer-arith $(WERROR)
HARDEN  := -fstack-protector-strong -fvisibility=hidden -fPIC
CPPFLAGS+= -D_GNU_SOURCE -I.
CFLAGS  ?= $(OPT)
ALLCF    = -std=gnu11 $(CFLAGS) $(WARN) $(HARDEN) $(SANFLAGS) -MMD -MP

# A floating-point contraction would make a kernel's result depend on the
# compiler's mood; kernels write their fused operations out.
ALLCF   += -ffp-contract=off

PKGS    := liburing libcjson libpcre2-8
PKG_CF  := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LD  := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
LDLIBS   = $(PKG_LD) -lopenblas -lm -lpthread
LDHARD  := $(LDFLAGS) -Wl,-z,relro,-z,now -Wl,--as-needed

X86     := $(filter x86_64,$(shell uname -m))
ISA_avx2   := $(if $(X86),-mavx2 -mfma -mf16c)
ISA_avxvnni := $(ISA_avx2)
ISA_avx512 := $(if $(X86),$(ISA_avx2) -mavx512f -mavx512bw -mavx512vl \
                -mavx512dq)
ISA_vnni   := $(if $(X86),$(ISA_avx512) -mavx512vnni)
ISA_bf16   := $(if $(X86),$(ISA_avx512) -mavx512bf16)
isa_flags   = $(ISA_$(lastword $(subst _, ,$(basename $(notdir $1)))))

# What a request passes through beside the arithmetic is many small functions
# in many files: together they cost a fifth less when the linker may inline
# them.  Programs and benches are linked so; tests take the objects as they are.
ifeq ($(SAN),)
LTO     ?= -flto=auto
endif
# Said also where there is none: sanitizer builds take the release objects of
# some files (below), and the linker would compile these anew.
NO_LTO  := -fno-lto
LINK     = $(SANFLAGS) $(CFLAGS) $(or $(LTO),$(NO_LTO))
lto_of      = $(if $(filter shm/% tokenizer/% worker/chat/% worker/wrk_% \
                worker/main.c,$1),$(if $(LTO),$(LTO) -ffat-lto-objects))

# Kernels of an instruction set: a sanitizer's code in their large inlined
# bodies takes minutes to compile and makes whole-model tests take as long.
# Their bounds are held by tests with guard pages (test_guard.c); sanitizer
# builds take the release objects of them.
RELEASE_ISA := $(SAN)
obj         = $(if $(and $(RELEASE_ISA),$(isa_flags)),build,$(O))/obj/$(1:.c=.o)
objs        = $(foreach f,$1,$(call obj,$f))

SHR_SRC    := $(wildcard shm/*.c)
TOK_SRC    := $(wildcard tokenizer/*.c)
CLI_SRC    := $(wildcard worker/cli/*.c)
WRK_DIRS   := $(filter-out cli,$(notdir $(patsubst %/,%,$(dir \
                $(wildcard worker/*/*.c)))))
WRK_DIRS   := $(sort $(WRK_DIRS))
WRK_SUB    := $(foreach d,$(WRK_DIRS),$(wildcard worker/$d/*.c))
WRK_TOP    := $(filter-out worker/main.c,$(wildcard worker/*.c))

LIBSHR     := $(O)/libshr.a
LIBTOK     := $(O)/libinfer-tokenizer.a
LIBWRK     := $(O)/libwrk.a
LIBS       := $(LIBWRK) $(LIBTOK) $(LIBSHR)

PROGS      := $(O)/nginx-infer-worker $(O)/infer

.PHONY: all progs module test clean tests bench install deb
all: progs module
progs: $(PROGS)
module: $(O)/ngx_http_infer_module.so

$(O)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALLCF) $(CPPFLAGS) $(PKG_CF) $(call isa_flags,$<) \
	    $(call lto_of,$<) -c -o $@ $<

# The scalar level is one large body: with ASan it compiles for minutes.  Its
# bounds are held by the tests with guard pages.
ifneq ($(O),build)
$(O)/obj/worker/kernels/kern_ref.o: SANFLAGS := $(if $(filter 1,$(SAN)),\
    -fsanitize=undefined -fno-sanitize-recover=undefined)
endif

ifneq ($(RELEASE_ISA),)
build/obj/%.o: CFLAGS = -O2 -g
build/obj/%.o: SANFLAGS :=
build/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALLCF) $(CPPFLAGS) $(PKG_CF) $(call isa_flags,$<) -c -o $@ $<
endif

$(LIBSHR): $(call objs,$(SHR_SRC))
$(LIBTOK): $(call objs,$(TOK_SRC))
$(LIBWRK): $(call objs,$(WRK_TOP) $(WRK_SUB))
$(foreach d,$(WRK_DIRS),$(eval $(O)/libwrk-$d.a: $(call objs,$(wildcard \
    worker/$d/*.c))))
$(O)/%.a:
	@rm -f $@
	$(AR) rcs $@ $^

$(O)/nginx-infer-worker: $(call objs,worker/main.c) $(LIBS)
	$(CC) $(LINK) $(LDHARD) -pie -o $@ $^ $(LDLIBS)

$(O)/infer: $(call objs,$(CLI_SRC)) $(LIBS)
	$(CC) $(LINK) $(LDHARD) -pie -o $@ $^ $(LDLIBS)

# The module: nginx's own configure reads ./config.
NGX_DEPS   := config $(wildcard ngx_module/*.[ch] shm/*.[ch])
$(O)/ngx_http_infer_module.so: $(NGX_DEPS)
	+CC="$(CC)" SANFLAGS="$(SANFLAGS)" LTO="$(LTO)" OUT="$(abspath $(O))" \
	    NGINX_SRC="$(NGINX_SRC)" tests/tools/build_module.sh

# Unit tests: tests/unit/AREA/test_*.c, one program each.
TEST_SRC   := $(wildcard tests/unit/*/test_*.c)
TEST_BIN   := $(patsubst tests/unit/%.c,$(O)/tests/%,$(TEST_SRC))
PROBE      := $(O)/tools/shr_probe
ROGUE      := $(O)/tools/shr_rogue
tests: $(TEST_BIN) $(PROBE) $(ROGUE)
$(PROBE): $(call objs,$(wildcard tests/tools/shr_probe*.c)) $(LIBSHR)
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) $(NO_LTO) -o $@ $^
$(ROGUE): $(call objs,tests/tools/shr_rogue.c) $(LIBSHR)
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) $(NO_LTO) -o $@ $^
$(O)/tests/%: $(O)/obj/tests/unit/%.o $(LIBS)
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) $(NO_LTO) -o $@ $^ $(LDLIBS) -lcmocka
.PRECIOUS: $(O)/obj/tests/unit/%.o

# Benches: tests/bench/AREA/bench_*.c, one program each.
BENCH_SRC  := $(wildcard tests/bench/*/bench_*.c)
BENCH_BIN  := $(patsubst tests/bench/%.c,$(O)/bench/%,$(BENCH_SRC))
bench: $(BENCH_BIN)
$(O)/bench/%: $(O)/obj/tests/bench/%.o $(LIBS)
	@mkdir -p $(@D)
	$(CC) $(LINK) -o $@ $^ $(LDLIBS)
.PRECIOUS: $(O)/obj/tests/bench/%.o

# Longer programs, run by hand and, shortened, by ./check.
$(O)/stress/%: $(O)/obj/tests/stress/%.o $(LIBSHR)
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) $(NO_LTO) -o $@ $^ -lpthread
.PRECIOUS: $(O)/obj/tests/stress/%.o

# Simulations: tests/sim/sim_*.c, longer runs with seeds; `make sim` builds.
SIM_BIN    := $(patsubst tests/sim/%.c,$(O)/tests/sim/%,$(wildcard \
                tests/sim/sim_*.c))
sim: $(SIM_BIN)
$(O)/tests/sim/%: $(O)/obj/tests/sim/%.o $(LIBS)
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) $(NO_LTO) -o $@ $^ $(LDLIBS)
.PRECIOUS: $(O)/obj/tests/sim/%.o
.PHONY: sim

test: $(TEST_BIN)
	tests/tools/run_unit.sh $(TEST_BIN)

# A running nginx keeps the old module until it is restarted; install replaces
# files, never writes into them.
MODULES_DIR ?= $(or $(shell nginx -V 2>&1 | tr ' ' '\n' \
                 | sed -n 's/^--modules-path=//p'),/usr/lib/nginx/modules)
WORKER_DIR  ?= /usr/lib/nginx
BIN_DIR     ?= /usr/local/bin
MAN_DIR     ?= /usr/local/share/man
SHARE_DIR   ?= /usr/local/share/nginx-infer
install: all
	install -D -m 644 $(O)/ngx_http_infer_module.so \
	    $(DESTDIR)$(MODULES_DIR)/ngx_http_infer_module.so
	install -D -m 755 $(O)/nginx-infer-worker \
	    $(DESTDIR)$(WORKER_DIR)/nginx-infer-worker
	install -D -m 755 $(O)/infer $(DESTDIR)$(BIN_DIR)/infer
	install -D -m 644 conf-examples/status/index.html \
	    $(DESTDIR)$(SHARE_DIR)/status/index.html
	install -D -m 644 docs/man/infer.1 $(DESTDIR)$(MAN_DIR)/man1/infer.1
	install -D -m 644 docs/man/nginx-infer-worker.8 \
	    $(DESTDIR)$(MAN_DIR)/man8/nginx-infer-worker.8

deb:
	packaging/build_deb.sh

clean:
	rm -rf build

-include $(shell find $(sort $(O)/obj build/obj) -name '*.d' 2>/dev/null)
