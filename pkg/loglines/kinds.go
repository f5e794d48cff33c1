package loglines

import "github.com/overcheck/overcheck/pkg/kernel"

// Kind is what a recognised line can be.
type Kind struct {
	ID      string `json:"id"`      // stable, kebab-case
	Meaning string `json:"meaning"` // Match.Meaning, less the sentence that names the error
	Example string `json:"example"` // a line of this kind, as it is written
}

// Kinds returns every kind, in the order in which they are tried: a program's
// own wordings before the general ones.
func Kinds() []Kind {
	all := kinds()
	out := make([]Kind, len(all))
	for i, k := range all {
		out[i] = k.Kind
	}
	return out
}

// kind is a Kind and how to recognise it. All words and patterns are in lower
// case, and are matched against the line in lower case.
type kind struct {
	Kind
	// cause is empty where it follows from the error that the line names.
	cause Cause
	// errno is what the writer can only mean; a group in a pattern overrides it.
	errno kernel.Errno
	// A line has one of leads, one of also (if there are any) and none of not,
	// or no pattern is tried. leads are what Scan looks for in every line: they
	// should be rare.
	leads, also, not []string
	// The named groups of patterns fill a Match: pid, comm, bytes, path, and
	// enomem or eagain, of which it is enough that they took part.
	patterns []string
}

// How the two errors are written. glibc has "Cannot allocate memory", musl "Out
// of memory", HotSpot's own table "Not enough space"; Go and zsh write lower
// case; EAGAIN is the same in all of them. A bare "out of memory" or a bare
// number says ENOMEM only in a place where an error is expected: see anyErrno.
const (
	enomem   = `(?P<enomem>cannot allocate memory|\benomem\b|errno[ =:]*-?12\b)`
	eagain   = `(?P<eagain>resource temporarily unavailable|\beagain\b|errno[ =:]*-?11\b)`
	errno    = `(?:` + enomem + `|` + eagain + `)`
	anyErrno = `(?:(?P<enomem>cannot allocate memory|out of memory|not enough space|\benomem\b|errno[ =:]*-?12\b|\(12[:)])|` +
		`(?P<eagain>resource temporarily unavailable|\beagain\b|errno[ =:]*-?11\b|\(11[:)]))`
	near  = `.{0,60}?`
	quote = `\\*"` // also as it stands inside JSON
)

// errnoWords are leads for errno, and anyErrnoWords for anyErrno.
func errnoWords() []string {
	return []string{"allocate memory", "temporarily una", "enomem", "eagain", "errno"}
}

func anyErrnoWords() []string { return append(errnoWords(), "out of memory") }

func kinds() []kind {
	var out []kind
	for _, list := range [][]kind{
		kernelKinds(), oomKinds(), redisKinds(), settingKinds(), serverKinds(), jvmKinds(),
		runtimeKinds(), shellKinds(), toolKinds(), killedKinds(), generalKinds(),
	} {
		out = append(out, list...)
	}
	return out
}

// kernelKinds: the lines in which the kernel itself says that it refused.
func kernelKinds() []kind {
	return []kind{{
		// mm/util.c:__vm_enough_memory, since 6.1: "no enough" in 6.1 and 6.2, "not
		// enough" since 6.3, with bytes (and no comma after them) since 6.9.
		Kind: Kind{
			ID:      "kernel-commit-refused",
			Meaning: "The commit check refused this process a charge, for a fork or for any other request. The bytes (Linux 6.9 and later) are of the one request that was refused, not of the whole fork.",
			Example: "[ 4211.027318] __vm_enough_memory: pid: 4121, comm: redis-server, bytes: 12884901888 not enough memory for the allocation",
		},
		cause: Commit, errno: kernel.ENOMEM,
		leads:    []string{"vm_enough_memory"},
		patterns: []string{`__vm_enough_memory: pid: (?P<pid>\d+), comm: (?P<comm>.*?),(?: bytes: (?P<bytes>\d+))?,? n(?:ot|o) enough memory for the allocation`},
	}, {
		// kernel/cgroup/pids.c: pids_can_fork, since 4.3; the path is of the task's own
		// cgroup. A path may hold systemd's \x2d.
		Kind: Kind{
			ID:      "kernel-pids-rejected",
			Meaning: "The pids controller refused a fork in this cgroup: pids.max of it, or of a cgroup above it, is reached. The kernel logs it only once for a cgroup.",
			Example: "[13964.753718] cgroup: fork rejected by pids controller in /user.slice/user-1000.slice/session-7.scope",
		},
		cause: Tasks, errno: kernel.EAGAIN,
		leads:    []string{"fork rejected"},
		patterns: []string{`fork rejected by pids controller in (?P<path>(?:[^\s"\\]|\\+x[0-9a-f]{2})+)`},
	}}
}

// oomKinds: kills for want of memory, by the kernel (mm/oom_kill.c) and by
// systemd-oomd, and how systemd and Kubernetes report them.
func oomKinds() []kind {
	const victim = `process (?P<pid>\d+)(?:, uid \d+,)? \((?P<comm>.{1,40}?)\)(?:[^)]|$)`
	return []kind{{
		// "Killed process", and in older kernels "Kill process ... score ... or sacrifice child".
		Kind: Kind{
			ID:      "kernel-oom-kill-cgroup",
			Meaning: "A cgroup reached its memory limit, and the OOM killer chose this process in it.",
			Example: "Memory cgroup out of memory: Killed process 19289 (redis-server) total-vm:2676kB, anon-rss:84kB, file-rss:1468kB, shmem-rss:4kB, UID:0 pgtables:40kB oom_score_adj:0",
		},
		cause:    Memory,
		leads:    []string{"out of memory"},
		also:     []string{"kill process", "killed process"},
		patterns: []string{`memory cgroup out of memory[^:]*: kill(?:ed)? ` + victim},
	}, {
		Kind: Kind{
			ID:      "kernel-oom-kill",
			Meaning: "The host ran out of memory, and the OOM killer chose this process.",
			Example: "[ 8523.351122] Out of memory: Killed process 4121 (redis-server) total-vm:33554432kB, anon-rss:30011204kB, file-rss:0kB, shmem-rss:0kB, UID:999 pgtables:60128kB oom_score_adj:0",
		},
		cause:    Memory,
		leads:    []string{"out of memory"},
		also:     []string{"kill process", "killed process"},
		patterns: []string{`out of memory[^:]*: kill(?:ed)? ` + victim},
	}, {
		// The second line of a kill in older kernels; RHEL 7 has "(java), UID 1000, total-vm".
		Kind: Kind{
			ID:      "kernel-oom-killed",
			Meaning: "The OOM killer killed this process. The lines before this one tell whether the host or a cgroup was out of memory.",
			Example: "Killed process 2592 (java) total-vm:8157804kB, anon-rss:6864176kB, file-rss:8072kB",
		},
		cause:    Memory,
		leads:    []string{"killed process"},
		patterns: []string{`killed ` + victim + `.{0,20}?(?:total-vm|vsz):`},
	}, {
		Kind: Kind{
			ID:      "kernel-oom-invoked",
			Meaning: "This process asked for memory that could not be found, and the OOM killer was called. A later line names the process that it chose.",
			Example: "redis-server invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0",
		},
		cause: Memory,
		leads: []string{"oom-kill"},
		// A comm may hold spaces; where its start is not known, only its last word is told.
		patterns: []string{
			`(?:^|kernel: |\] ?|^\d+,[^;]{1,80};)(?P<comm>[!#-9;<=?-Z^-~][ !#-Z^-~]{0,14}) invoked oom-killer`,
			`(?:(?:^|[\s;"\]\x00])(?P<comm>[^\s"\\\[\]\x00-\x1f\x{fffd}]{1,15}) )?invoked oom-killer`,
		},
	}, {
		// dump_oom_summary, in newer kernels only.
		Kind: Kind{
			ID:      "kernel-oom-summary",
			Meaning: "The OOM killer's summary of a kill. CONSTRAINT_MEMCG means that a cgroup reached its memory limit, CONSTRAINT_NONE that the host ran out of memory.",
			Example: "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/kubepods/burstable,task_memcg=/kubepods/burstable/redis,task=redis-server,pid=19289,uid=999",
		},
		cause: Memory,
		leads: []string{"oom-kill"},
		patterns: []string{
			`oom-kill:constraint=.*?(?:oom_memcg=|global_oom,task_memcg=)(?P<path>[^,]*),.*?task=(?P<comm>.*),pid=(?P<pid>\d+)`,
			`oom-kill:constraint=`,
		},
	}, {
		// mm/memcontrol.c: mem_cgroup_print_oom_info, in older kernels.
		Kind: Kind{
			ID:      "kernel-oom-cgroup-limit",
			Meaning: "A process was killed because this cgroup reached its memory limit.",
			Example: "Task in /docker/34186d9b killed as a result of limit of /docker/34186d9b",
		},
		cause:    Memory,
		leads:    []string{"as a result of limit"},
		patterns: []string{`killed as a result of limit of (?P<path>(?:[^\s"\\]|\\+x[0-9a-f]{2})+)`},
	}, {
		// systemd, src/core/unit.c and service.c.
		Kind: Kind{
			ID:      "systemd-oom-kill",
			Meaning: "systemd reports that the OOM killer killed a process of this unit.",
			Example: "systemd[1]: redis.service: A process of this unit has been killed by the OOM killer.",
		},
		cause:    Memory,
		leads:    []string{"oom-kill", "oom killer"},
		patterns: []string{`a process of this unit has been killed by the oom killer`, `failed with result 'oom-kill'`},
	}, {
		// systemd, src/oom/oomd-manager.c.
		Kind: Kind{
			ID:      "systemd-oomd-kill",
			Meaning: "systemd-oomd, not the kernel, killed the processes of this cgroup because memory was short.",
			Example: "systemd-oomd[939]: Killed /user.slice/user-1000.slice/user@1000.service/app.slice/x.service due to memory pressure for /user.slice/user-1000.slice being 82.36% > 80.00% for > 20s with reclaim activity",
		},
		cause:    Memory,
		leads:    []string{"due to memory"},
		patterns: []string{`killed (?P<path>/\S+) due to memory (?:pressure|used)`},
	}, {
		// Kubernetes container statuses, docker inspect, kubectl get pods.
		Kind: Kind{
			ID:      "container-oom-killed",
			Meaning: "A container is reported as killed by the OOM killer.",
			Example: `"lastState":{"terminated":{"exitCode":137,"reason":"OOMKilled"}}`,
		},
		cause:    Memory,
		leads:    []string{"oomkilled"},
		patterns: []string{`reason[\\"':= ]{1,16}oomkilled\b`, `oomkilled[\\"' ]*[:=] *true\b`, `\d+/\d+ +oomkilled\b`},
	}}
}

// redisKinds: Redis, Valkey and their forks, which share the wordings.
func redisKinds() []kind {
	return []kind{{
		// rdb.c: rdbSaveBackground, and rdbSaveToSlavesSockets (diskless replication)
		// with the same words; provoked on 7.0.
		Kind: Kind{
			ID:      "redis-save-fork",
			Meaning: "Redis or Valkey could not fork the child that writes a snapshot: for a save point, BGSAVE, or the full sync of a replica.",
			Example: "4121:M 22 Nov 2026 22:13:51.129 # Can't save in background: fork: Cannot allocate memory",
		},
		leads:    []string{"save in background: fork"},
		patterns: []string{`can't save in background: fork: (?:` + anyErrno + `)?`},
	}, {
		// aof.c: rewriteAppendOnlyFileBackground; provoked on 7.0.
		Kind: Kind{
			ID:      "redis-aof-fork",
			Meaning: "Redis or Valkey could not fork the child that rewrites the append only file.",
			Example: "4121:M 22 Nov 2026 22:13:51.133 # Can't rewrite append only file in background: fork: Cannot allocate memory",
		},
		leads:    []string{"file in background: fork"},
		patterns: []string{`can't rewrite append only file in background: fork: (?:` + anyErrno + `)?`},
	}, {
		// module.c: RM_Fork. With "File exists" another child was active: no match.
		Kind: Kind{
			ID:      "redis-module-fork",
			Meaning: "A module of Redis or Valkey could not fork its child.",
			Example: "4121:M 22 Nov 2026 22:13:51.133 # Can't fork for module: Cannot allocate memory",
		},
		leads:    []string{"can't fork"},
		patterns: []string{`can't fork for module: ` + anyErrno},
	}, {
		// replication.c: startBgsaveForReplication, and what a replica logs of it.
		Kind: Kind{
			ID:      "redis-sync-failed",
			Meaning: "The full sync of a replica failed because the primary could not start its snapshot. The primary's log tells why.",
			Example: "4121:M 22 Nov 2026 22:13:51.140 # BGSAVE for replication failed",
		},
		cause:    Unknown,
		leads:    []string{"bgsave for", "bgsave fail"},
		patterns: []string{`bgsave for replication failed`, `bgsave failed, replication can't continue`},
	}, {
		// rdb.c: backgroundSaveDoneHandlerDisk and ...Socket; provoked on 7.0.
		Kind: Kind{
			ID:      "redis-save-killed",
			Meaning: "The child that wrote a snapshot, or sent it to replicas, was killed with SIGKILL. The OOM killer does that, and so does kill -9: the kernel's log tells which.",
			Example: "4121:M 22 Nov 2026 22:13:57.311 # Background saving terminated by signal 9",
		},
		cause:    Memory,
		leads:    []string{"by signal 9"},
		patterns: []string{`background (?:saving|(?:rdb )?transfer) terminated by signal 9\b`},
	}, {
		// aof.c: backgroundRewriteDoneHandler, since 2.4; the longer wording before.
		Kind: Kind{
			ID:      "redis-aof-killed",
			Meaning: "The child that rewrote the append only file was killed with SIGKILL. The OOM killer does that, and so does kill -9: the kernel's log tells which.",
			Example: "4121:M 22 Nov 2026 22:13:58.818 # Background AOF rewrite terminated by signal 9",
		},
		cause:    Memory,
		leads:    []string{"by signal 9"},
		patterns: []string{`background (?:aof rewrite|append only file rewriting) terminated by signal 9\b`},
	}, {
		// server.c: shared.bgsaveerr; older: "but is currently not able to persist on disk",
		// newer: "but it's currently unable to persist to disk" (provoked on 7.0); "MISCONF
		// Valkey" in Valkey.
		Kind: Kind{
			ID:      "redis-misconf",
			Meaning: "Redis or Valkey refuses writes because its last snapshot failed (stop-writes-on-bgsave-error). Its log tells why it failed: a refused fork is one reason, a full disk another.",
			Example: "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may modify the data set are disabled",
		},
		cause:    Unknown,
		leads:    []string{"misconf"},
		patterns: []string{`misconf \S+ is configured to save rdb snapshots, but`},
	}}
}

// settingKinds: what programs say of vm.overcommit_memory and of transparent huge
// pages when they start.
func settingKinds() []kind {
	return []kind{{
		// server.c: linuxMemoryWarnings, and the first syscheck.c.
		Kind: Kind{
			ID:      "redis-overcommit-zero",
			Meaning: "Redis found vm.overcommit_memory set to 0 when it started. It is a warning: nothing was refused yet.",
			Example: "# WARNING overcommit_memory is set to 0! Background save may fail under low memory condition.",
		},
		cause:    Setting,
		leads:    []string{"overcommit"},
		patterns: []string{`overcommit_memory is set to 0!`},
	}, {
		// syscheck.c: checkOvercommit, as in 7.0; it compares with 1.
		Kind: Kind{
			ID:      "redis-overcommit-off",
			Meaning: "Redis or Valkey found vm.overcommit_memory set to 0 or 2 when it started: it asks for 1. It is a warning: nothing was refused yet.",
			Example: "# WARNING Memory overcommit must be enabled! Without it, a background save or replication may fail under low memory condition.",
		},
		cause:    Setting,
		leads:    []string{"overcommit"},
		patterns: []string{`memory overcommit must be enabled!`},
	}, {
		// startup_warnings_mongod.cpp, id 22171.
		Kind: Kind{
			ID:      "mongodb-overcommit-never",
			Meaning: "MongoDB found vm.overcommit_memory set to 2 when it started. It is a warning: nothing was refused yet.",
			Example: `{"s":"W","c":"CONTROL","id":22171,"msg":"Journaling works best if /proc/sys/vm/overcommit_memory is set to 0 or 1","attr":{"currentValue":2}}`,
		},
		cause:    Setting,
		leads:    []string{"overcommit"},
		patterns: []string{`journaling works best if /proc/sys/vm/overcommit_memory is set to 0 or 1`},
	}, {
		// pkg/kubelet/cm/container_manager_linux.go: setupKernelTunables.
		Kind: Kind{
			ID:      "kubelet-overcommit",
			Meaning: "The kubelet found vm.overcommit_memory at another value than 1. It sets it to 1 (Updating) or, with protectKernelDefaults, takes it for an error (Invalid).",
			Example: "Invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0",
		},
		cause:    Setting,
		leads:    []string{"overcommit"},
		patterns: []string{`(?:invalid|updating) kernel flag.*vm/overcommit_memory`},
	}, {
		// server.c: "you have" and "echo never"; syscheck.c: "You have" and "echo madvise".
		Kind: Kind{
			ID:      "redis-thp",
			Meaning: "Redis or Valkey found transparent huge pages enabled when it started. It is a warning: nothing was refused.",
			Example: "# WARNING you have Transparent Huge Pages (THP) support enabled in your kernel. This will create latency and memory usage issues with Redis.",
		},
		cause:    THP,
		leads:    []string{"(thp) support"},
		patterns: []string{`you have transparent huge pages \(thp\) support enabled`},
	}, {
		// MongoDB before 8.0, which wants "always".
		Kind: Kind{
			ID:      "mongodb-thp",
			Meaning: "MongoDB found transparent huge pages set to always when it started. It is a warning: nothing was refused.",
			Example: "** WARNING: /sys/kernel/mm/transparent_hugepage/enabled is 'always'.",
		},
		cause:    THP,
		leads:    []string{"hugepage/enabled is"},
		patterns: []string{`/sys/kernel/mm/transparent_hugepage/enabled is 'always'`},
	}}
}

// serverKinds: servers and daemons that could not start a process.
func serverKinds() []kind {
	return []kind{{
		// postmaster.c: BackendStartup, StartChildProcess, do_start_bgworker, syslogger.c,
		// autovacuum.c; since 18 launch_backend.c, with the type in quotes. Provoked on 15.
		Kind: Kind{
			ID:      "postgres-fork",
			Meaning: "PostgreSQL could not fork a process: a backend for a new connection, or the worker that the line names.",
			Example: "2026-11-22 22:14:05.015 UTC [20490] LOG:  could not fork new process for connection: Cannot allocate memory",
		},
		leads: []string{"could not fork"},
		patterns: []string{
			`could not fork (?:` + quote + `[^"]{1,40}` + quote + ` process|[\w -]{1,40}(?:process|logger|collector))(?: for connection)?: ` + anyErrno,
			`could not fork (?:new process for connection|` + quote + `[^"]{1,40}` + quote + ` process|(?:autovacuum|startup|archiver|background|checkpointer|wal|worker|bgworker|system)[\w -]{0,40}): `,
		},
	}, {
		// sshd.c and monitor: server_accept_loop's error("fork: %.100s"), privsep_preauth.
		Kind: Kind{
			ID:      "sshd-fork",
			Meaning: "sshd could not fork for a connection: nobody new can log in over ssh while this lasts.",
			Example: "sshd[124]: error: fork: Cannot allocate memory",
		},
		leads:    append(anyErrnoWords(), "of unprivileged child"),
		also:     []string{"fork"},
		patterns: []string{`sshd.{0,40}?: (?:error: )?fork: ` + anyErrno, `fork of unprivileged child failed`},
	}, {
		// os/unix/ngx_process.c: ngx_spawn_process.
		Kind: Kind{
			ID:      "nginx-fork",
			Meaning: "nginx could not fork the process that the line names.",
			Example: `2026/11/22 22:14:05 [alert] 1#1: fork() failed while spawning "worker process" (12: Cannot allocate memory)`,
		},
		leads:    anyErrnoWords(),
		also:     []string{"fork"},
		patterns: []string{`fork\(\) failed while spawning ` + quote + `(?P<path>[^"\\]+)` + quote + near + anyErrno},
	}, {
		// server/mpm: make_child, in all of prefork, worker, event and itk.
		Kind: Kind{
			ID:      "apache-fork",
			Meaning: "Apache httpd could not fork a server process.",
			Example: "[mpm_prefork:error] [pid 15474] (12)Cannot allocate memory: AH00159: fork: Unable to fork new process",
		},
		leads:    []string{"unable to fork"},
		patterns: []string{anyErrno + near + `fork: unable to fork new process`, `fork: unable to fork new process`},
	}, {
		// ext/standard/exec.c and proc_open.c ("fork failed", "Fork failed" since 8.0),
		// ext/pcntl/pcntl.c. php-fpm's own "fork() failed: ..." is fork-failed.
		Kind: Kind{
			ID:      "php-fork",
			Meaning: "PHP could not start a process for exec, proc_open, pcntl_fork or the like.",
			Example: "PHP Warning:  proc_open(): fork failed - Cannot allocate memory in /srv/app/x.php on line 16",
		},
		leads: append(anyErrnoWords(), "unable to fork", "pcntl_fork(): error 1"),
		also:  []string{"fork"},
		patterns: []string{
			`proc_open\(\): fork failed - ` + anyErrno,
			`pcntl_fork\(\): error (?:(?P<enomem>12)|(?P<eagain>11))\b`,
			`\w\(\): unable to fork \[(?P<path>[^\]]*)`,
		},
	}, {
		// Debian's cron: log_it(... "error", "can't fork"); others: "CAN'T FORK (%m)".
		Kind: Kind{
			ID:      "cron-fork",
			Meaning: "cron could not fork: a job that was due did not run.",
			Example: "cron[644]: (CRON) error (can't fork)",
		},
		leads: []string{"can't fork"},
		patterns: []string{
			`\(cron\) (?:error \()?can't fork` + near + anyErrno,
			`\(cron\) (?:error \()?can't fork`,
		},
	}, {
		// systemd, many places: "Failed to fork: %m", "Failed to fork off %s: %m"; since 255
		// "Failed to spawn executor: %m", "Failed to spawn 'start' task: %m", before "run".
		Kind: Kind{
			ID:      "systemd-fork",
			Meaning: "systemd, or a tool that words it alike, could not start a process.",
			Example: "systemd[1]: redis.service: Failed to spawn executor: Cannot allocate memory",
		},
		leads:    errnoWords(),
		also:     []string{"fork", "spawn", "failed to run"},
		patterns: []string{`failed to (?:fork|fork off [^:]{1,60}|spawn executor|(?:spawn|run) '[\w-]+' task): ` + errno},
	}}
}

// jvmKinds: OpenJDK and its kin.
func jvmKinds() []kind {
	return []kind{{
		// ProcessBuilder, ProcessImpl_md.c: "error=%d, %s" (provoked on 17), in 25 "%s, error:
		// %d (%s)" after "fork failed" or the like. The text after the number is the locale's.
		Kind: Kind{
			ID:      "jvm-process",
			Meaning: "A Java program could not start a process.",
			Example: `java.io.IOException: Cannot run program "/bin/true": error=12, Cannot allocate memory`,
		},
		leads: []string{"error=11", "error=12", "failed, error: 1"},
		patterns: []string{
			`cannot run program ` + quote + `(?P<path>[^"\\]+)` + quote + `.{0,300}?error(?:=|: )(?:(?P<enomem>12)|(?P<eagain>11))\b`,
			`ioexception: error=(?:(?P<enomem>12)|(?P<eagain>11)), `,
			`(?:v?fork|posix_spawn|spawn|exec) failed, error: (?:(?P<enomem>12)|(?P<eagain>11)) \(`,
		},
	}, {
		// Thread.start (jvm.cpp), os_linux.cpp: os::create_thread. glibc's pthread_create
		// turns ENOMEM into EAGAIN, so a refused stack looks like a limit on tasks.
		Kind: Kind{
			ID:      "jvm-thread",
			Meaning: "A Java program could not start a thread. glibc gives EAGAIN for a limit on tasks, and also where no memory was to be had for the stack.",
			Example: "java.lang.OutOfMemoryError: unable to create native thread: possibly out of memory or process/resource limits reached",
		},
		cause: Tasks, errno: kernel.EAGAIN,
		leads:    []string{"native thread", "(eagain) for attributes"},
		patterns: []string{`unable to create (?:new )?native thread`, `failed to start the native thread for java`, `pthread_create failed \(eagain\) for attributes`},
	}, {
		// os_linux.cpp: warn_fail_commit_memory; debug.cpp: report_vm_out_of_memory.
		// Newer HotSpots write 'Not enough space', older ones the locale's words.
		Kind: Kind{
			ID:      "jvm-memory",
			Meaning: "The JVM asked for memory, not for a process, and was refused. It usually exits.",
			Example: "OpenJDK 64-Bit Server VM warning: INFO: os::commit_memory(0x00007f1ec3a00000, 262144, 0) failed; error='Not enough space' (errno=12)",
		},
		cause: Commit,
		leads: []string{"os::commit_memory", "native memory alloc"},
		patterns: []string{
			`os::commit_memory\(0x[0-9a-f]+, (?P<bytes>\d+), [^)]{1,30}\) failed; error='[^']*' \(errno=(?P<enomem>12)\)`,
			`os::commit_memory\(0x[0-9a-f]+, (?P<bytes>\d+), [^)]{1,30}\) failed; error='(?P<enomem>cannot alloc|not enough space)`,
			`native memory allocation \((?:mmap|malloc)\) failed to (?:map|allocate) (?P<bytes>\d+) bytes`,
		},
	}}
}

// runtimeKinds: the other language runtimes.
func runtimeKinds() []kind {
	return []kind{{
		// internal/child_process.js: ErrnoException(err, 'spawn'), and the object printed as
		// JSON; provoked on 20.
		Kind: Kind{
			ID:      "node-spawn",
			Meaning: "A Node.js program could not start a process.",
			Example: "Error: spawnSync /bin/sh ENOMEM",
		},
		leads: []string{"enomem", "eagain"},
		also:  []string{"spawn"},
		patterns: []string{
			`\bspawn(?:sync)?(?: (?P<path>[^\s"']+))? (?:(?P<enomem>enomem)|(?P<eagain>eagain))\b`,
			`code` + quote + `: ?` + quote + `(?:(?P<enomem>enomem)|(?P<eagain>eagain))` + quote + near + `syscall` + quote + `: ?` + quote + `spawn(?:sync)?(?: (?P<path>[^"\\]+))?`,
		},
	}, {
		// Lib/threading.py over Modules/_threadmodule.c: thread_PyThread_start_new_thread.
		Kind: Kind{
			ID:      "python-thread",
			Meaning: "A Python program could not start a thread. Python does not tell the error; a limit on tasks is the usual reason.",
			Example: "RuntimeError: can't start new thread",
		},
		cause:    Tasks,
		leads:    []string{"can't start new"},
		patterns: []string{`can't start new thread`},
	}, {
		// PyErr_SetFromErrno; provoked on 3.11 with os.fork, subprocess and posix_spawn. The
		// path is posix_spawn's (or that of a file, where the call was about one).
		Kind: Kind{
			ID:      "python-enomem",
			Meaning: "A Python program got ENOMEM. The traceback above the line tells from what: a process could not be started if it ends in a fork or spawn call.",
			Example: "OSError: [Errno 12] Cannot allocate memory",
		},
		cause: Commit, errno: kernel.ENOMEM,
		leads:    []string{"errno"},
		patterns: []string{`\[errno 12\](?:[^:'\n]{1,60}: '(?P<path>/[^']+)')?`},
	}, {
		Kind: Kind{
			ID:      "python-eagain",
			Meaning: "A Python program got EAGAIN. The traceback above the line tells from what: a process could not be started if it ends in a fork or spawn call; otherwise it was a non-blocking read or a lock.",
			Example: "BlockingIOError: [Errno 11] Resource temporarily unavailable",
		},
		cause: Tasks, errno: kernel.EAGAIN,
		leads:    []string{"errno"},
		also:     []string{"temporarily una"},
		patterns: []string{`(?:blockingioerror|oserror): \[errno 11\] resource temporarily unavailable(?:: '(?P<path>/[^']+)')?`},
	}, {
		// process.c: rb_sys_fail("fork(2)"), and the command's name for spawn, system and
		// backquotes; provoked on 3.1. EAGAIN of a socket has another word there.
		Kind: Kind{
			ID:      "ruby-process",
			Meaning: "A Ruby program could not start a process, or, where no fork or command is named, got ENOMEM from another call.",
			Example: "-e:1:in `_fork': Cannot allocate memory - fork(2) (Errno::ENOMEM)",
		},
		leads: anyErrnoWords(),
		also:  []string{" - ", "errno::"},
		patterns: []string{
			`(?:(?P<enomem>cannot allocate memory|out of memory)|(?P<eagain>resource temporarily unavailable)) - v?fork\(2\)`,
			`(?P<eagain>resource temporarily unavailable) - (?P<path>/[^\s"'()\\]+) \(errno::`,
			`errno::eagain: (?P<eagain>resource temporarily unavailable) - (?P<path>/[^\s"'()\\]+)`,
			`(?P<enomem>cannot allocate memory|out of memory) - (?P<path>[^\s"'()\\]+) \(errno::`,
			`errno::(?P<enomem>enomem)\b(?:: [\w ]{1,30} - (?P<path>[^\s"'()\\]+))?`,
		},
	}, {
		// os/exec_posix.go: PathError{Op: "fork/exec"}. Docker's and runc's errors too.
		Kind: Kind{
			ID:      "go-process",
			Meaning: "A Go program (docker, runc and the kubelet are) could not start a process.",
			Example: "fork/exec /usr/bin/git: cannot allocate memory",
		},
		leads:    anyErrnoWords(),
		also:     []string{"fork"},
		patterns: []string{`fork/exec (?P<path>[^:"]{1,256}): ` + anyErrno},
	}, {
		// runtime/os_linux.go: newosproc.
		Kind: Kind{
			ID:      "go-thread",
			Meaning: "A Go program (docker, runc and the kubelet are) could not start a thread, and exited.",
			Example: "runtime: failed to create new OS thread (have 33 already; errno=11)",
		},
		leads: []string{"create new os thread"},
		patterns: []string{
			`runtime: failed to create new os thread \(have \d+ already; errno=(?:(?P<enomem>12)|(?P<eagain>11))\)`,
		},
	}}
}

// shellKinds: what a login or a script shows.
func shellKinds() []kind {
	const shell = `(?:^|[^\w./-])-?(?:[\w./-]*/)?(?:(?:ba|da|z|k|mk|c|tc|a|fi)?sh|su|[\w.-]+\.sh)(?:: line \d+|: \d+)?: `
	return []kind{{
		// bash, jobs.c: make_child; it retries only on EAGAIN, and older ones then print
		// the error of a wait in between, "No child processes". zsh: "fork failed";
		// busybox: "can't fork". Provoked on bash 5.2.
		Kind: Kind{
			ID:      "shell-fork",
			Meaning: "A shell could not fork for a command.",
			Example: "-bash: fork: retry: Resource temporarily unavailable",
		},
		leads: append(anyErrnoWords(), "fork: retry"),
		also:  []string{"fork"},
		patterns: []string{
			`\bfork: (?P<eagain>retry): `,
			shell + `(?:fork|can't fork|fork failed): ` + anyErrno,
		},
	}, {
		// dash, jobs.c: forkshell's sh_error("Cannot fork"), without the error.
		Kind: Kind{
			ID:      "dash-fork",
			Meaning: "A shell (dash: /bin/sh of Debian and Ubuntu) could not fork for a command.",
			Example: "/bin/sh: 1: Cannot fork",
		},
		leads:    []string{"cannot fork"},
		patterns: []string{`\S: \d+: cannot fork(?:$|[\s"\\])`},
	}, {
		// sudo, src/exec*.c: sudo_warn("unable to fork").
		Kind: Kind{
			ID:      "sudo-fork",
			Meaning: "sudo could not fork for a command.",
			Example: "sudo: unable to fork: Resource temporarily unavailable",
		},
		leads:    []string{"unable to fork"},
		patterns: []string{`sudo: unable to fork: (?:` + anyErrno + `)?`},
	}}
}

// toolKinds: what a build or a CI job shows.
func toolKinds() []kind {
	return []kind{{
		// run-command.c: "cannot fork() for %s" (provoked on 2.39); convert.c: "cannot fork to
		// run external filter '%s'"; sub-process.c; connect.c: "unable to fork".
		Kind: Kind{
			ID:      "git-fork",
			Meaning: "git could not start a process.",
			Example: "error: cannot fork() for git-upload-pack: Resource temporarily unavailable",
		},
		leads: []string{"cannot fork", "unable to fork"},
		patterns: []string{
			`error: cannot fork\(\) for (?P<path>[^:]{1,256}): ` + anyErrno,
			`error: cannot fork to run ` + near + anyErrno,
			`error: cannot fork to run (?:external filter|subprocess)`,
			`(?:fatal|error): (?:[\w-]+: |git upload-pack: )?unable to fork(?:\W*$|["\\]| off\b| git-)`,
		},
	}, {
		// GNU make, job.c: "fork", "vfork", or with posix_spawn the shell (provoked on 4.3).
		Kind: Kind{
			ID:      "make-fork",
			Meaning: "make could not start a command.",
			Example: "make: /bin/sh: Cannot allocate memory",
		},
		leads:    errnoWords(),
		also:     []string{"make"},
		patterns: []string{`\bg?make(?:\[\d+\])?: (?:\*\*\* )?(?:v?fork|(?P<path>/\S+)): +` + errno},
	}, {
		// gcc.cc: execute, with libiberty's pex; provoked on 12.
		Kind: Kind{
			ID:      "gcc-fork",
			Meaning: "gcc could not start its compiler proper, assembler or linker.",
			Example: "gcc: fatal error: cannot execute 'cc1': vfork: Cannot allocate memory",
		},
		leads:    errnoWords(),
		also:     []string{"cannot execute"},
		patterns: []string{`cannot execute (?:['‘` + "`" + `]|\\u2018)?(?P<path>[^'’\\]{1,256}?)(?:['’]|\\u2019)?: (?:v?fork|posix_spawn|pex_\w+): ` + errno},
	}}
}

// killedKinds: servers whose child was killed with SIGKILL.
func killedKinds() []kind {
	return []kind{{
		// PostgreSQL, postmaster.c: LogChildExit; nginx, ngx_process_get_status; php-fpm,
		// fpm_children_bury; gunicorn, arbiter.py: reap_workers, since 20.1.
		Kind: Kind{
			ID:      "child-killed",
			Meaning: "A server's child process was killed with SIGKILL. The OOM killer does that, and so does kill -9: the kernel's log tells which.",
			Example: "LOG:  server process (PID 4242) was terminated by signal 9: Killed",
		},
		cause: Memory,
		leads: []string{"by signal 9", "on signal 9", "out of memory"},
		patterns: []string{
			`\(pid (?P<pid>\d+)\) was terminated by signal 9\b`,
			`\b(?:process|child) (?P<pid>\d+) exited on signal 9\b`,
			`worker \(pid:(?P<pid>\d+)\) was sent sigkill! perhaps out of memory`,
		},
	}}
}

// generalKinds: an error beside a word for what failed, whoever writes it.
func generalKinds() []kind {
	const fork = `(?:^|[^\w/.@-])v?fork(?:pty|_and_exec|ing)?(?:\(\d?\))?`
	return []kind{{
		// perror("fork"), "Can't fork: %s" (perl), "fork failed: %s" (man, flock, dpkg),
		// "cannot fork: %s" (xargs, find), "Couldn't fork: %s" (LLVM) and the like.
		Kind: Kind{
			ID:      "fork-failed",
			Meaning: "A program could not fork.",
			Example: "xargs: cannot fork: Resource temporarily unavailable",
		},
		leads: anyErrnoWords(),
		also:  []string{"fork"},
		patterns: []string{
			fork + `\W(?:` + near + `\W)??` + errno,
			fork + `(?: failed)?: (?P<enomem>out of memory)\b`,
			errno + `\W{1,5}v?fork\b`,
		},
	}, {
		// pthread_create: git, MySQL ("errno= 11"), Ruby, cgo, OpenBLAS, Apache and others.
		Kind: Kind{
			ID:      "thread-failed",
			Meaning: "A program could not start a thread. glibc gives EAGAIN for a limit on tasks, and also where no memory was to be had for the stack.",
			Example: "runtime/cgo: pthread_create failed: Resource temporarily unavailable",
		},
		leads: errnoWords(),
		also:  []string{"thread"},
		patterns: []string{
			`(?:pthread_create|thread_create|(?:create|creating|start|starting|spawn|spawning) (?:\S+ ){0,3}?threads?)\b.{0,80}?` + errno,
			errno + `.{0,20}?(?:thread_create|create (?:\S+ ){0,2}?thread)\b`,
		},
	}, {
		// posix_spawn, and what wraps it.
		Kind: Kind{
			ID:      "spawn-failed",
			Meaning: "A program could not start a process.",
			Example: "posix_spawn failed: Cannot allocate memory",
		},
		leads: errnoWords(),
		also:  []string{"spawn", "process", "child"},
		patterns: []string{
			`(?:^|[^\w/.@-])(?:posix_spawnp?|spawn|spawning)(?:\(\))?\W(?:.{0,80}?\W)??` + errno,
			`(?:create|creating|start|starting|launch|launching) (?:\S+ ){0,2}?(?:process|subprocess|child)\b` + near + errno,
		},
	}, {
		// Not a process: mmap, brk or malloc. InnoDB ("mmap(%lu bytes) failed; errno 12"),
		// PostgreSQL (pg_shmem.c, mcxt.c), Redis (zmalloc's handler), Go (mheap.go,
		// mem_linux.go), Rust (alloc's handler), bash (xmalloc.c). Huge pages and locked
		// memory have limits of their own.
		Kind: Kind{
			ID:      "memory-refused",
			Meaning: "A program asked for memory, not for a process, and was refused.",
			Example: "InnoDB: mmap(137363456 bytes) failed; errno 12",
		},
		cause: Commit,
		leads: []string{"allocate memory", "enomem", "errno", "out of memory", "request of size", "bytes failed", "xmalloc:", "xrealloc:", "runtime: cannot alloc"},
		not:   []string{"huge", "mlock"},
		patterns: []string{
			`(?:^|[^\w/.])(?:mmap(?:64)?|mremap|mprotect|s?brk|malloc|calloc|realloc|shmget)\b(?:\((?P<bytes>\d+) bytes\))?` + near + enomem,
			`could not (?:map|create) (?:anonymous )?shared memory` + near + enomem,
			`virtual memory exhausted: ` + enomem,
			`out of memory allocating (?P<bytes>\d+) bytes`,
			`failed on request of size (?P<bytes>\d+)`,
			`memory allocation of (?P<bytes>\d+) bytes failed`,
			`runtime: (?:out of memory|cannot allocate memory)(?:: cannot allocate (?P<bytes>\d+)-byte block)?`,
			`\bx(?:m|re)alloc: .{0,40}?cannot allocate (?P<bytes>\d+) bytes`,
		},
	}}
}
