package loglines

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/bits"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/overcheck/overcheck/pkg/kernel"
	"github.com/overcheck/overcheck/pkg/size"
)

// wording is a line as its program writes it, and what is to be made of it.
type wording struct {
	line  string
	kind  string
	errno kernel.Errno // "": nil
	cause Cause
	pid   int // 0: nil
	comm  string
	bytes size.Bytes // 0: nil
	path  string
}

const (
	nomem = kernel.ENOMEM
	again = kernel.EAGAIN
)

// wordings has each wording of each kind.
func wordings() []wording {
	w := func(kind string, errno kernel.Errno, cause Cause, line string) wording {
		return wording{line: line, kind: kind, errno: errno, cause: cause}
	}
	path := func(path string, w wording) wording { w.path = path; return w }
	process := func(pid int, comm string, w wording) wording { w.pid, w.comm = pid, comm; return w }
	amount := func(n size.Bytes, w wording) wording { w.bytes = n; return w }
	return []wording{
		process(513, "shmget02", w("kernel-commit-refused", nomem, Commit, "__vm_enough_memory: pid: 513, comm: shmget02, not enough memory for the allocation")),
		process(4121, "redis-server", w("kernel-commit-refused", nomem, Commit, "__vm_enough_memory: pid: 4121, comm: redis-server, no enough memory for the allocation")),
		amount(135168, process(4121, "a, b", w("kernel-commit-refused", nomem, Commit, "__vm_enough_memory: pid: 4121, comm: a, b, bytes: 135168 not enough memory for the allocation"))),
		path("/user.slice/user-1000.slice/session-7.scope", w("kernel-pids-rejected", again, Tasks, "cgroup: fork rejected by pids controller in /user.slice/user-1000.slice/session-7.scope")),
		path("/docker/34186d9b", w("kernel-pids-rejected", again, Tasks, "cgroup: fork rejected by pids controller in /docker/34186d9b")),

		process(4121, "redis-server", w("kernel-oom-kill", "", Memory, "Out of memory: Killed process 4121 (redis-server) total-vm:33554432kB, anon-rss:30011204kB, file-rss:0kB, shmem-rss:0kB, UID:999 pgtables:60128kB oom_score_adj:0")),
		process(4121, "java", w("kernel-oom-kill", "", Memory, "Out of memory: Kill process 4121 (java) score 854 or sacrifice child")),
		process(77, "(sd-pam)", w("kernel-oom-kill", "", Memory, "Out of memory (oom_kill_allocating_task): Killed process 77 ((sd-pam)) total-vm:1kB, anon-rss:1kB")),
		process(19289, "memcg process", w("kernel-oom-kill-cgroup", "", Memory, "Memory cgroup out of memory: Killed process 19289 (memcg process) total-vm:2676kB, anon-rss:84kB, file-rss:1468kB, shmem-rss:4kB, UID:0 pgtables:40kB oom_score_adj:0")),
		process(215701, "java", w("kernel-oom-kill-cgroup", "", Memory, "Memory cgroup out of memory: Kill process 215701 (java) score 854 or sacrifice child")),
		process(2592, "java", w("kernel-oom-killed", "", Memory, "Killed process 2592 (java) total-vm:8157804kB, anon-rss:6864176kB, file-rss:8072kB")),
		process(2592, "java", w("kernel-oom-killed", "", Memory, "Killed process 2592 (java), UID 1000, total-vm:8157804kB, anon-rss:6864176kB")),
		process(2592, "java", w("kernel-oom-killed", "", Memory, "Killed process 2592, UID 1000, (java) total-vm:8157804kB, anon-rss:6864176kB")),
		process(0, "kworker/0:1", w("kernel-oom-invoked", "", Memory, "kworker/0:1 invoked oom-killer: gfp_mask=0x23201ca, order=0, oom_score_adj=0")),
		process(0, "redis-server", w("kernel-oom-invoked", "", Memory, "redis-server invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0")),
		path("/ltp_19257", process(19289, "memcg,process", w("kernel-oom-summary", "", Memory, "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0-1,oom_memcg=/ltp_19257,task_memcg=/ltp_19257/x,task=memcg,process,pid=19289,uid=0"))),
		path("/system.slice/redis.service", process(4121, "redis-server", w("kernel-oom-summary", "", Memory, "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/system.slice/redis.service,task=redis-server,pid=4121,uid=999"))),
		path("/1037", w("kernel-oom-cgroup-limit", "", Memory, "Task in /1037/uid killed as a result of limit of /1037")),
		w("systemd-oom-kill", "", Memory, "redis.service: A process of this unit has been killed by the OOM killer."),
		w("systemd-oom-kill", "", Memory, "redis.service: Failed with result 'oom-kill'."),
		path("/user.slice/user-1000.slice/x.scope", w("systemd-oomd-kill", "", Memory, "Killed /user.slice/user-1000.slice/x.scope due to memory pressure for /user.slice/user-1000.slice being 82.36% > 80.00% for > 20s with reclaim activity")),
		w("container-oom-killed", "", Memory, `"lastState":{"terminated":{"exitCode":137,"reason":"OOMKilled","startedAt":"2026-11-22T22:14:05Z"}}`),
		w("container-oom-killed", "", Memory, "      Reason:       OOMKilled"),
		w("container-oom-killed", "", Memory, `"OOMKilled": true,`),
		w("container-oom-killed", "", Memory, "redis-0   0/1     OOMKilled   3 (41s ago)   5m"),

		w("redis-save-fork", nomem, Commit, "4121:M 22 Nov 2026 22:13:51.129 # Can't save in background: fork: Cannot allocate memory"),
		w("redis-save-fork", nomem, Commit, "4121:M 22 Nov 2026 22:13:51.129 # Can't save in background: fork: Out of memory"),
		w("redis-save-fork", again, Tasks, "[4121] 22 Nov 22:13:51 # Can't save in background: fork: Resource temporarily unavailable"),
		w("redis-save-fork", "", Unknown, "4121:M 22 Nov 2026 22:13:51.129 # Can't save in background: fork: 无法分配内存"),
		w("redis-aof-fork", nomem, Commit, "4121:M 22 Nov 2026 22:13:51.133 # Can't rewrite append only file in background: fork: Cannot allocate memory"),
		w("redis-aof-fork", again, Tasks, "4121:M 22 Nov 2026 22:13:54.171 # Can't rewrite append only file in background: fork: Resource temporarily unavailable"),
		w("redis-module-fork", nomem, Commit, "4121:M 22 Nov 2026 22:13:54.171 # Can't fork for module: Cannot allocate memory"),
		w("redis-module-fork", again, Tasks, "4121:M 22 Nov 2026 22:13:54.171 # Can't fork for module: Resource temporarily unavailable"),
		w("redis-sync-failed", "", Unknown, "4121:M 22 Nov 2026 22:13:54.171 # BGSAVE for replication failed"),
		w("redis-sync-failed", "", Unknown, "4122:S 22 Nov 2026 22:13:54.171 # MASTER aborted replication with an error: ERR BGSAVE failed, replication can't continue"),
		w("redis-save-killed", "", Memory, "4121:M 22 Nov 2026 22:13:57.311 # Background saving terminated by signal 9"),
		w("redis-save-killed", "", Memory, "4121:M 22 Nov 2026 22:13:57.311 # Background transfer terminated by signal 9"),
		w("redis-aof-killed", "", Memory, "4121:M 22 Nov 2026 22:13:58.818 # Background AOF rewrite terminated by signal 9"),
		w("redis-aof-killed", "", Memory, "[4121] 22 Nov 22:13:58 # Background append only file rewriting terminated by signal 9"),
		w("redis-misconf", "", Unknown, "(error) MISCONF Redis is configured to save RDB snapshots, but is currently not able to persist on disk. Commands that may modify the data set are disabled. Please check Redis logs for details about the error."),
		w("redis-misconf", "", Unknown, "redis.exceptions.ResponseError: MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may modify the data set are disabled, because this instance is configured to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option)."),
		w("redis-overcommit-zero", "", Setting, "1:M 27 Oct 2020 02:04:00.958 # WARNING overcommit_memory is set to 0! Background save may fail under low memory condition. To fix this issue add 'vm.overcommit_memory = 1' to /etc/sysctl.conf and then reboot or run the command 'sysctl vm.overcommit_memory=1' for this to take effect."),
		w("redis-overcommit-off", "", Setting, "1:C 27 Jan 2025 05:47:23.126 # WARNING Memory overcommit must be enabled! Without it, a background save or replication may fail under low memory condition. Being disabled, it can also cause failures without low memory condition, see https://github.com/jemalloc/jemalloc/issues/1328."),
		w("mongodb-overcommit-never", "", Setting, `{"t":{"$date":"2026-11-22T22:14:05.015+00:00"},"s":"W","c":"CONTROL","id":22171,"ctx":"initandlisten","msg":"Journaling works best if /proc/sys/vm/overcommit_memory is set to 0 or 1","attr":{"currentValue":2},"tags":["startupWarnings"]}`),
		w("kubelet-overcommit", "", Setting, "invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0"),
		w("kubelet-overcommit", "", Setting, `container_manager_linux.go:435] "Updating kernel flag" flag="vm/overcommit_memory" expectedValue=1 actualValue=0`),
		w("redis-thp", "", THP, "1:M 16 Feb 2020 17:04:48.924 # WARNING you have Transparent Huge Pages (THP) support enabled in your kernel. This will create latency and memory usage issues with Redis. To fix this issue run the command 'echo never > /sys/kernel/mm/transparent_hugepage/enabled' as root"),
		w("redis-thp", "", THP, "1:M 16 Feb 2026 17:04:48.924 # WARNING You have Transparent Huge Pages (THP) support enabled in your kernel. This will create latency and memory usage issues with Valkey. To fix this issue run the command 'echo madvise > /sys/kernel/mm/transparent_hugepage/enabled' as root"),
		w("mongodb-thp", "", THP, "2017-08-09T15:01:55.843-0700 I CONTROL  [initandlisten] ** WARNING: /sys/kernel/mm/transparent_hugepage/enabled is 'always'."),

		w("postgres-fork", nomem, Commit, "2026-11-22 22:14:05.015 UTC [20490] LOG:  could not fork new process for connection: Cannot allocate memory"),
		w("postgres-fork", again, Tasks, `psql: error: connection to server on socket "/tmp/.s.PGSQL.5432" failed: could not fork new process for connection: Resource temporarily unavailable`),
		w("postgres-fork", nomem, Commit, "2026-11-22 22:14:05.043 UTC [20490] LOG:  could not fork startup process: Cannot allocate memory"),
		w("postgres-fork", again, Tasks, "LOG:  could not fork autovacuum worker process: Resource temporarily unavailable"),
		w("postgres-fork", nomem, Commit, "LOG:  could not fork worker process: Cannot allocate memory"),
		w("postgres-fork", nomem, Commit, "LOG:  could not fork background worker process: Out of memory"),
		w("postgres-fork", nomem, Commit, "FATAL:  could not fork system logger: Cannot allocate memory"),
		w("postgres-fork", nomem, Commit, `LOG:  could not fork "autovacuum worker" process: Cannot allocate memory`),
		w("postgres-fork", "", Unknown, "LOG:  could not fork new process for connection: Nicht genügend Hauptspeicher verfügbar"),
		w("sshd-fork", nomem, Commit, "sshd[124]: error: fork: Cannot allocate memory"),
		w("sshd-fork", again, Tasks, "sshd[124]: error: fork: Resource temporarily unavailable"),
		w("sshd-fork", "", Unknown, "sshd[124]: fatal: fork of unprivileged child failed"),
		path("worker process", w("nginx-fork", nomem, Commit, `2026/11/22 22:14:05 [alert] 1#1: fork() failed while spawning "worker process" (12: Cannot allocate memory)`)),
		path("cache manager process", w("nginx-fork", again, Tasks, `2026/11/22 22:14:05 [alert] 1#1: fork() failed while spawning "cache manager process" (11: Resource temporarily unavailable)`)),
		w("apache-fork", nomem, Commit, "[Tue Apr 18 00:19:23.680713 2017] [mpm_itk:error] [pid 15474] (12)Cannot allocate memory: fork: Unable to fork new process"),
		w("apache-fork", again, Tasks, "[mpm_prefork:error] [pid 15474] (11)Resource temporarily unavailable: AH00159: fork: Unable to fork new process"),
		w("php-fork", nomem, Commit, "PHP Warning:  proc_open(): fork failed - Cannot allocate memory in phar:///usr/bin/composer.phar on line 16"),
		w("php-fork", again, Tasks, "Warning:  proc_open(): Fork failed - Resource temporarily unavailable in /srv/x.php on line 16"),
		w("php-fork", again, Tasks, "Warning:  pcntl_fork(): Error 11 in /srv/olc/ProcessManager.php on line 16"),
		path("/usr/bin/epubcheck -q /path/to.epub 2>&1", w("php-fork", "", Unknown, "PHP Warning:  exec(): Unable to fork [/usr/bin/epubcheck -q /path/to.epub 2>&1] in /srv/x.php on line 16")),
		w("cron-fork", "", Unknown, "crond[3046]: (CRON) error (can't fork)"),
		w("cron-fork", nomem, Commit, "crond[3046]: (CRON) CAN'T FORK (do_command): Cannot allocate memory"),
		w("cron-fork", again, Tasks, "crond[3046]: (CRON) CAN'T FORK (Resource temporarily unavailable)"),
		w("systemd-fork", nomem, Commit, "systemd: Failed to fork: Cannot allocate memory"),
		w("systemd-fork", again, Tasks, "Failed to fork: Resource temporarily unavailable"),
		w("systemd-fork", nomem, Commit, "systemd[1]: redis.service: Failed to spawn executor: Cannot allocate memory"),
		w("systemd-fork", again, Tasks, "systemd[1]: redis.service: Failed to spawn 'start' task: Resource temporarily unavailable"),
		w("systemd-fork", nomem, Commit, "systemd[1]: redis.service: Failed to run 'start-post' task: Cannot allocate memory"),
		w("systemd-fork", nomem, Commit, "Failed to fork off sd-pam: Cannot allocate memory"),

		path("/bin/true", w("jvm-process", nomem, Commit, `java.io.IOException: Cannot run program "/bin/true": error=12, Cannot allocate memory`)),
		path("/bin/true", w("jvm-process", again, Tasks, `java.io.IOException: Cannot run program "/bin/true": error=11, Resource temporarily unavailable`)),
		path("git", w("jvm-process", nomem, Commit, `Cannot run program "git" (in directory "/path/to/jenkins/project"): java.io.IOException: error=12, Cannot allocate memory`)),
		path("ls", w("jvm-process", nomem, Commit, `Exception in thread "main" java.io.IOException: Cannot run program "ls": error=12, 无法分配内存`)),
		w("jvm-process", nomem, Commit, "Caused by: java.io.IOException: error=12, Cannot allocate memory"),
		path("ssh", w("jvm-process", nomem, Commit, `Cannot run program "ssh": fork failed, error: 12 (Cannot allocate memory)`)),
		w("jvm-process", again, Tasks, "Caused by: java.io.IOException: posix_spawn failed, error: 11 (Resource temporarily unavailable)"),
		w("jvm-thread", again, Tasks, "java.lang.OutOfMemoryError: unable to create new native thread"),
		w("jvm-thread", again, Tasks, `Exception in thread "main" java.lang.OutOfMemoryError: unable to create native thread: possibly out of memory or process/resource limits reached`),
		w("jvm-thread", again, Tasks, "[144.859s][warning][os,thread] Failed to start thread - pthread_create failed (EAGAIN) for attributes: stacksize: 1024k, guardsize: 0k, detached."),
		w("jvm-thread", again, Tasks, `[11.235s][warning][os,thread] Failed to start the native thread for java.lang.Thread "pool-1-thread-32309"`),
		amount(262144, w("jvm-memory", nomem, Commit, "OpenJDK 64-Bit Server VM warning: INFO: os::commit_memory(0x00007f1ec3a00000, 262144, 0) failed; error='Not enough space' (errno=12)")),
		amount(1073741824, w("jvm-memory", nomem, Commit, "Java HotSpot(TM) Server VM warning: INFO: os::commit_memory(0x67e00000, 1073741824, 0) failed; error='Cannot allocate memory' (errno=12)")),
		amount(12288, w("jvm-memory", nomem, Commit, "OpenJDK 64-Bit Server VM warning: INFO: os::commit_memory(0x00007ef976d0b000, 12288, 0) failed; error='메모리를 할당할 수 없습니다' (errno=12)")),
		amount(2060255232, w("jvm-memory", nomem, Commit, "VM warning: INFO: os::commit_memory(0x0000000085330000, 2060255232, 0) failed; error='Cannot alloc")),
		amount(262144, w("jvm-memory", "", Commit, "# Native memory allocation (mmap) failed to map 262144 bytes for committing reserved memory.")),

		w("node-spawn", nomem, Commit, "Error: spawn ENOMEM"),
		w("node-spawn", again, Tasks, "Error: spawn EAGAIN"),
		path("/bin/sh", w("node-spawn", nomem, Commit, "Error: spawnSync /bin/sh ENOMEM")),
		path("/usr/bin/node", w("node-spawn", again, Tasks, "Error: spawn /usr/bin/node EAGAIN")),
		path("/bin/sh", w("node-spawn", again, Tasks, `{"errno":-11,"code":"EAGAIN","syscall":"spawn /bin/sh","path":"/bin/sh"}`)),
		w("python-thread", "", Tasks, "RuntimeError: can't start new thread"),
		w("python-thread", "", Tasks, "thread.error: can't start new thread"),
		w("python-enomem", nomem, Commit, "OSError: [Errno 12] Cannot allocate memory"),
		w("python-enomem", nomem, Commit, "OSError: [Errno 12] Out of memory"),
		path("/bin/true", w("python-enomem", nomem, Commit, "OSError: [Errno 12] Cannot allocate memory: '/bin/true'")),
		w("python-eagain", again, Tasks, "BlockingIOError: [Errno 11] Resource temporarily unavailable"),
		path("/bin/true", w("python-eagain", again, Tasks, "BlockingIOError: [Errno 11] Resource temporarily unavailable: '/bin/true'")),
		w("python-eagain", again, Tasks, "OSError: [Errno 11] Resource temporarily unavailable"),
		w("ruby-process", nomem, Commit, "-e:1:in `_fork': Cannot allocate memory - fork(2) (Errno::ENOMEM)"),
		w("ruby-process", again, Tasks, "-e:1:in `_fork': Resource temporarily unavailable - fork(2) (Errno::EAGAIN)"),
		path("/bin/true", w("ruby-process", nomem, Commit, "-e:1:in `spawn': Cannot allocate memory - /bin/true (Errno::ENOMEM)")),
		path("git", w("ruby-process", nomem, Commit, "-e:1:in `spawn': Cannot allocate memory - git (Errno::ENOMEM)")),
		path("/bin/true", w("ruby-process", again, Tasks, "-e:1:in `spawn': Resource temporarily unavailable - /bin/true (Errno::EAGAIN)")),
		path("git", w("ruby-process", nomem, Commit, "Errno::ENOMEM: Cannot allocate memory - git")),
		w("ruby-process", again, Tasks, "Errno::EAGAIN: Resource temporarily unavailable - fork(2)"),
		path("/bin/true", w("ruby-process", again, Tasks, "Errno::EAGAIN: Resource temporarily unavailable - /bin/true")),
		w("ruby-process", nomem, Commit, "rescued Errno::ENOMEM, will try again"),
		path("/usr/bin/git", w("go-process", nomem, Commit, "error: fork/exec /usr/bin/git: cannot allocate memory")),
		path("/proc/self/exe", w("go-process", again, Tasks, "docker: Error response from daemon: OCI runtime create failed: fork/exec /proc/self/exe: resource temporarily unavailable: unknown.")),
		w("go-thread", again, Tasks, "runtime: failed to create new OS thread (have 33 already; errno=11)"),
		w("go-thread", nomem, Commit, "runtime: failed to create new OS thread (have 2 already; errno=12)"),

		w("shell-fork", nomem, Commit, "bash: fork: Cannot allocate memory"),
		w("shell-fork", again, Tasks, "bash: fork: Resource temporarily unavailable"),
		w("shell-fork", again, Tasks, "-bash: fork: retry: Resource temporarily unavailable"),
		w("shell-fork", again, Tasks, "-su: fork: retry: No child processes"),
		w("shell-fork", again, Tasks, "/opt/run: fork: retry: Resource temporarily unavailable"),
		w("shell-fork", nomem, Commit, "-bash: fork: Cannot allocate memory"),
		w("shell-fork", nomem, Commit, "/opt/reset-retired.sh: line 17: fork: Cannot allocate memory"),
		w("shell-fork", again, Tasks, "zsh: fork failed: resource temporarily unavailable"),
		w("shell-fork", again, Tasks, "sh: can't fork: Resource temporarily unavailable"),
		w("shell-fork", nomem, Commit, "/bin/sh: can't fork: Out of memory"),
		w("dash-fork", "", Unknown, "/bin/sh: 1: Cannot fork"),
		w("dash-fork", "", Unknown, "./configure: 2710: Cannot fork"),
		w("sudo-fork", again, Tasks, "sudo: unable to fork: Resource temporarily unavailable"),
		w("sudo-fork", nomem, Commit, "sudo: unable to fork: Cannot allocate memory"),

		path("true", w("git-fork", nomem, Commit, "error: cannot fork() for true: Cannot allocate memory")),
		path("git-upload-pack '/srv/x.git'", w("git-fork", again, Tasks, "error: cannot fork() for git-upload-pack '/srv/x.git': Resource temporarily unavailable")),
		w("git-fork", nomem, Commit, "error: cannot fork to run git-gui: Cannot allocate memory"),
		w("git-fork", "", Unknown, "error: cannot fork to run external filter 'git-lfs filter-process'"),
		w("git-fork", "", Unknown, "fatal: unable to fork"),
		w("git-fork", "", Unknown, "fatal: fetch-pack: unable to fork off sideband demultiplexer"),
		w("make-fork", nomem, Commit, "make: fork: Cannot allocate memory"),
		w("make-fork", again, Tasks, "make[2]: vfork: Resource temporarily unavailable"),
		path("/bin/sh", w("make-fork", nomem, Commit, "make: /bin/sh: Cannot allocate memory")),
		path("cc1", w("gcc-fork", nomem, Commit, "gcc: fatal error: cannot execute 'cc1': vfork: Cannot allocate memory")),
		path("/usr/lib/gcc/x86_64-linux-gnu/12/cc1", w("gcc-fork", again, Tasks, "gcc: fatal error: cannot execute ‘/usr/lib/gcc/x86_64-linux-gnu/12/cc1’: vfork: Resource temporarily unavailable")),

		process(4242, "", w("child-killed", "", Memory, "2026-07-05 12:00:02 UTC [103]: LOG:  server process (PID 4242) was terminated by signal 9: Killed")),
		process(33, "", w("child-killed", "", Memory, "2026/11/22 22:14:05 [alert] 1#1: worker process 33 exited on signal 9")),
		process(429, "", w("child-killed", "", Memory, "WARNING: [pool web] child 429 exited on signal 9 (SIGKILL) after 50.938617 seconds from start")),
		process(14, "", w("child-killed", "", Memory, "[2024-06-13 22:29:21 +0000] [7] [ERROR] Worker (pid:14) was sent SIGKILL! Perhaps out of memory?")),

		w("fork-failed", again, Tasks, "xargs: cannot fork: Resource temporarily unavailable"),
		w("fork-failed", nomem, Commit, "find: cannot fork: Cannot allocate memory"),
		w("fork-failed", nomem, Commit, "tar: child process: Cannot fork: Cannot allocate memory"),
		w("fork-failed", nomem, Commit, "Can't fork: Cannot allocate memory at -e line 1."),
		w("fork-failed", nomem, Commit, "timeout: fork system call failed: Cannot allocate memory"),
		w("fork-failed", nomem, Commit, "setsid: fork: Cannot allocate memory"),
		w("fork-failed", again, Tasks, "man: fork failed: Resource temporarily unavailable"),
		w("fork-failed", again, Tasks, "watch: unable to fork process: Resource temporarily unavailable"),
		w("fork-failed", again, Tasks, "start-stop-daemon: unable to do first fork (Resource temporarily unavailable)"),
		w("fork-failed", again, Tasks, "vfork: Resource temporarily unavailable."),
		w("fork-failed", nomem, Commit, "dovecot: master: Error: service(imap): fork() failed: Cannot allocate memory"),
		w("fork-failed", again, Tasks, "[22-Nov-2026 22:14:05] ERROR: fork() failed: Resource temporarily unavailable (11)"),
		w("fork-failed", nomem, Commit, "os::fork_and_exec failed: Cannot allocate memory (12)"),
		w("fork-failed", nomem, Commit, "error: unable to fork: Cannot allocate memory"),
		w("fork-failed", nomem, Commit, "open3: fork failed: Cannot allocate memory at /usr/bin/git-svn line 2711"),
		w("fork-failed", nomem, Commit, "postfix/master[1]: warning: master_spawn: fork: Cannot allocate memory -- throttling"),
		w("fork-failed", nomem, Commit, "myapp: fork: Out of memory"),
		w("fork-failed", nomem, Commit, "clang: error: unable to execute command: Couldn't fork: Cannot allocate memory"),
		w("fork-failed", nomem, Commit, "Fork() failed: can't run EVAL in debugging mode: Cannot allocate memory"),
		w("fork-failed", again, Tasks, "(11) Resource temporarily unavailable: fork"),
		w("thread-failed", again, Tasks, "runtime/cgo: pthread_create failed: Resource temporarily unavailable"),
		w("thread-failed", again, Tasks, "fatal: unable to create thread: Resource temporarily unavailable"),
		w("thread-failed", again, Tasks, "[ERROR] Can't create thread to handle new connection(errno= 11)"),
		w("thread-failed", again, Tasks, "ERROR 1135 (HY000): Can't create a new thread (errno 11); if you are not out of available memory, you can consult the manual"),
		w("thread-failed", again, Tasks, "-e:1:in `initialize': can't create Thread: Resource temporarily unavailable (ThreadError)"),
		w("thread-failed", again, Tasks, "OpenBLAS blas_thread_init: pthread_create failed for thread 12 of 64: Resource temporarily unavailable"),
		w("thread-failed", again, Tasks, "(11)Resource temporarily unavailable: AH03142: ap_thread_create: unable to create worker thread"),
		w("thread-failed", again, Tasks, `failed to spawn thread: Os { code: 11, kind: WouldBlock, message: "Resource temporarily unavailable" }`),
		w("spawn-failed", nomem, Commit, "posix_spawn failed: Cannot allocate memory"),
		w("spawn-failed", again, Tasks, "posix_spawn: Resource temporarily unavailable"),
		w("spawn-failed", nomem, Commit, "su: cannot create child process: Cannot allocate memory"),
		w("spawn-failed", again, Tasks, "failed to spawn rustc: Resource temporarily unavailable (os error 11)"),
		amount(137363456, w("memory-refused", nomem, Commit, "InnoDB: mmap(137363456 bytes) failed; errno 12")),
		w("memory-refused", nomem, Commit, "mmap failed: Cannot allocate memory"),
		w("memory-refused", nomem, Commit, "FATAL:  could not map anonymous shared memory: Cannot allocate memory"),
		w("memory-refused", nomem, Commit, "virtual memory exhausted: Cannot allocate memory"),
		amount(1048576, w("memory-refused", "", Commit, "4121:M 22 Nov 2026 22:13:57.311 # Out Of Memory allocating 1048576 bytes!")),
		amount(134217728, w("memory-refused", "", Commit, "DETAIL:  Failed on request of size 134217728.")),
		amount(96, w("memory-refused", "", Commit, "memory allocation of 96 bytes failed")),
		amount(4194304, w("memory-refused", "", Commit, "runtime: out of memory: cannot allocate 4194304-byte block (66748416 in use)")),
		w("memory-refused", "", Commit, "fatal error: runtime: out of memory"),
		amount(15933440, w("memory-refused", "", Commit, "bash: xrealloc: cannot allocate 15933440 bytes")),
	}
}

func scan(t *testing.T, s string) []Match {
	t.Helper()
	var got []Match
	if _, err := Scan(strings.NewReader(s), func(m Match) { got = append(got, m) }); err != nil {
		t.Fatal(err)
	}
	return got
}

// surroundings are ways in which a line reaches a log.
func surroundings() map[string]func(string) string {
	before := func(prefix string) func(string) string {
		return func(s string) string { return prefix + s }
	}
	encoded := func(s string) string {
		b, _ := json.Marshal(s)
		return string(b)
	}
	return map[string]func(string) string{
		"alone":    func(s string) string { return s },
		"syslog":   before("Nov 22 22:14:05 db1 app[4120]: "),
		"journald": before("2026-11-22T22:14:05+0000 db1 app[4120]: "),
		"dmesg":    before("[ 4211.027318] "),
		"kern.log": before("Nov 22 22:14:05 db1 kernel: [ 4211.027318] "),
		"rfc5424":  before("<4>1 2026-11-22T22:14:05.015Z db1 app 4120 - - "),
		"compose":  before("redis_1  | "),
		"cri":      before("2026-11-22T22:14:05.015123456Z stderr F "),
		"stern":    before("redis-0 redis "),
		"quoted":   func(s string) string { return "> " + s + "  " },
		"NUL":      before("\x00\x00\x00\x00"),
		"CRLF":     func(s string) string { return s + "\r" },
		"invalid":  func(s string) string { return "\xff\xfe " + s + " \xc3" },
		"docker": func(s string) string {
			return `{"log":` + encoded(s+"\n") + `,"stream":"stderr","time":"2026-11-22T22:14:05Z"}`
		},
		"json":      func(s string) string { return `{"level":"error","msg":` + encoded(s) + `}` },
		"json json": func(s string) string { return `{"log":` + encoded(`{"msg":`+encoded(s)+"}\n") + `}` },
		"gson":      func(s string) string { return `{"m":` + strings.ReplaceAll(encoded(s), "'", `\u0027`) + `}` },
		"red":       func(s string) string { return "\x1b[1;31m" + s + "\x1b[0m" },
		"rainbow":   func(s string) string { return strings.ReplaceAll(s, " ", " \x1b[0m\x1b[38;5;196m") },
		"rsyslog":   func(s string) string { return "#033[31m" + s + "#033[0m" },
		"zap":       func(s string) string { return `{"m":"\u001b[31m` + strings.Trim(encoded(s), `"`) + `\u001b[0m"}` },
	}
}

func TestEachWordingInEachSurrounding(t *testing.T) {
	for name, in := range surroundings() {
		t.Run(name, func(t *testing.T) {
			for _, w := range wordings() {
				got := scan(t, "before\n"+in(w.line)+"\nafter\n")
				if len(got) != 1 {
					t.Errorf("%q: %d matches", w.line, len(got))
					continue
				}
				m := got[0]
				if m.Line != 2 {
					t.Errorf("%q: line %d", w.line, m.Line)
				}
				if diff := cmp.Diff(w, w.of(m), cmp.AllowUnexported(wording{})); diff != "" {
					t.Errorf("%q: -want +got\n%s", w.line, diff)
				}
			}
		})
	}
}

// of is the wording that m amounts to, for comparison with w.
func (w wording) of(m Match) wording {
	got := wording{line: w.line, kind: m.Kind, cause: m.Cause, comm: m.Comm, path: m.Path}
	if m.Errno != nil {
		got.errno = *m.Errno
	}
	if m.PID != nil {
		got.pid = *m.PID
	}
	if m.Bytes != nil {
		got.bytes = *m.Bytes
	}
	return got
}

func TestOrdinaryLinesDoNotMatch(t *testing.T) {
	for _, line := range []string{
		"",
		"Background saving started by pid 12",
		"Background append only file rewriting started by pid 20454",
		"Background saving terminated with success",
		"Background saving terminated by signal 10",
		"Background saving terminated by signal 99",
		"Background saving error",
		"Fork CoW for RDB: current 2 MB, peak 2 MB, average 1 MB",
		"Can't fork for module: File exists",
		"OOM command not allowed when used memory > 'maxmemory'.",
		"MISCONF Errors writing to the AOF file: No space left on device",
		"git fork", "forked from octocat/hello", "error: remote fork/exec is not a branch",
		"HTTP 403: failed to fork repository octocat/hello", "could not fork octocat/hello: 403", "fatal: unable to fork repository",
		"bash: fork: command not found", "bash: line 1: fork: command not found",
		"GET /fork/exec HTTP/1.1",
		"spawn ENOENT", "Error: spawn /bin/sh EACCES", "spawned worker process 12", "child process 12 exited with code 1",
		`Cannot run program "x": error=2, No such file or directory`, `Cannot run program "x": error=13, Permission denied`,
		`Cannot run program "x": Exec failed, error: 2 (No such file or directory)`, "error=127, x", "java.io.IOException: error=0, Failed to exec spawn helper: pid: 72, exit value: 1",
		"fork/exec /usr/bin/x: no such file or directory",
		"java.lang.OutOfMemoryError: Java heap space", "java.lang.OutOfMemoryError: GC overhead limit exceeded",
		"FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
		"pthread_create failed (EINVAL) for attributes: stacksize: 1024k",
		"os::commit_memory(0x0000000403800000, 1073741824, 0) failed; error='The paging file is too small' (DOS error/errno=1455)",
		`2026/11/22 22:14:05 [error] 7#7: *1 connect() to unix:/run/php/php-fpm.sock failed (11: Resource temporarily unavailable) while connecting to upstream, request: "GET /fork HTTP/1.1"`,
		"2026/11/22 22:14:05 [error] 7#7: *1 recv() failed (11: Resource temporarily unavailable) while reading response header from upstream",
		"E: Could not get lock /var/lib/dpkg/lock-frontend - open (11: Resource temporarily unavailable)",
		"IO error: While lock file: /db/LOCK: Resource temporarily unavailable",
		"IO::EAGAINWaitReadable: Resource temporarily unavailable - read would block",
		"Resource temporarily unavailable - connect(2) for /tmp/x.sock (Errno::EAGAIN)",
		"[Errno 11] Resource temporarily unavailable", "[Errno 2] No such file or directory", "[Errno 122] Disk quota exceeded",
		"read: errno=12 bytes left 0", "exit status: errno 110",
		"mlock: Cannot allocate memory", "mmap of huge pages failed: Cannot allocate memory", "kmalloc: Cannot allocate memory",
		"socket: Cannot allocate memory", "sendto: Cannot allocate memory", "open /dev/x: Cannot allocate memory",
		"vm.overcommit_memory = 1", "sysctl -w vm.overcommit_memory=2", "/sys/kernel/mm/transparent_hugepage/enabled is 'never'",
		`"State":{"OOMKilled":false,"Dead":false}`, `"OOMKilled": false`, "oom_score_adj is 0", "oom_reaper: reaped process 19289 (x), now anon-rss:0kB", "OOM killer disabled.",
		"server process (PID 4242) was terminated by signal 11: Segmentation fault", "worker process 33 exited on signal 11",
		"Killed process group of job 4", "killed process 12",
		"starting thread pool of 4 threads", "Started thread 12", "unable to create thread pool: invalid argument",
		"LOG:  forked new backend, pid=12 socket=9", "cgroup: new mount options do not match the existing superblock",
		"Failed to spawn executor: No such file or directory", "Failed to run 'start' task: Permission denied",
		"sudo: unable to execute /bin/x: Permission denied",
		"make: /bin/sh: No such file or directory", "warning: memory allocation failed gracefully",
	} {
		for _, in := range surroundings() {
			if got := scan(t, in(line)); len(got) != 0 {
				t.Errorf("%q is said to be %s", in(line), got[0].Kind)
			}
		}
	}
}

func TestKindsAreDistinctAndRecogniseTheirExamples(t *testing.T) {
	seen := map[string]bool{}
	id := regexp.MustCompile(`^[a-z]+(-[a-z]+)+$`)
	for _, k := range Kinds() {
		if !id.MatchString(k.ID) || seen[k.ID] {
			t.Errorf("%s: not kebab-case, or there twice", k.ID)
		}
		seen[k.ID] = true
		if !strings.HasSuffix(k.Meaning, ".") || strings.Count(k.Meaning, ". ") > 1 {
			t.Errorf("%s: %q is not one sentence or two", k.ID, k.Meaning)
		}
		got := scan(t, k.Example)
		if len(got) != 1 || got[0].Kind != k.ID || !strings.HasPrefix(got[0].Meaning, k.Meaning) {
			t.Errorf("%s: its example gives %+v", k.ID, got)
		}
	}
	for _, w := range wordings() {
		if !seen[w.kind] {
			t.Errorf("%s is tested and does not exist", w.kind)
		}
		delete(seen, w.kind)
		for _, k := range kinds() {
			if k.ID == w.kind && k.errno != "" && k.errno != w.errno {
				t.Errorf("%q: its kind means %s", w.line, k.errno)
			}
		}
		seen[w.kind] = true
	}
}

// Each kind has a wording in the table above, each pattern compiles and is
// reached by one, and the words fit the automaton.
func TestEachPatternIsReached(t *testing.T) {
	s := newScanner()
	if n := len(s.words.next) / width; n >= lead {
		t.Fatalf("%d states", n)
	}
	var bit uint64
	for _, set := range s.words.words {
		bit |= set
	}
	if n := bits.OnesCount64(bit); bits.Len64(bit) != n || n > 64 {
		t.Fatalf("%d words: %b", n, bit)
	}
	for _, k := range kinds() {
		for _, p := range k.patterns {
			re, reached := regexp.MustCompile(p), false
			for _, w := range wordings() {
				reached = reached || w.kind == k.ID && re.MatchString(strings.ToLower(w.line))
			}
			if !reached {
				t.Errorf("%s: no wording for %s", k.ID, p)
			}
		}
	}
}

func TestACommMayHoldSpaces(t *testing.T) {
	for line, want := range map[string]string{
		"Nov 22 22:14:05 db1 kernel: Web Content invoked oom-killer: gfp_mask=0x0":  "Web Content",
		"[ 4211.027318] Web Content invoked oom-killer: gfp_mask=0x0":               "Web Content",
		"db1: Web Content invoked oom-killer: gfp_mask=0x0, its start is not known": "Content",
		"invoked oom-killer: gfp_mask=0x0":                                          "",
		"Out of memory: Killed process 12 (Web Content) total-vm:8kB":               "Web Content",
		"Out of memory: Killed process 12 (a) b) total-vm:8kB":                      "a",
	} {
		if got := scan(t, line); len(got) != 1 || got[0].Comm != want {
			t.Errorf("%q: got %+v, want %q", line, got, want)
		}
	}
}

func TestTheErrorDecidesTheCause(t *testing.T) {
	for _, w := range wordings() {
		if w.errno == nomem && w.cause != Commit || w.errno == again && w.cause != Tasks {
			t.Errorf("%q: %s and %s", w.line, w.errno, w.cause)
		}
		m := scan(t, w.line)[0]
		if strings.Contains(m.Meaning, "The error is") != (w.errno != "" && strings.HasSuffix(m.Meaning, string(w.errno)+".")) {
			t.Errorf("%q: %q", w.line, m.Meaning)
		}
	}
}

func TestJSONHasTheNamesOfTheContract(t *testing.T) {
	m := scan(t, "bash: fork: Cannot allocate memory")[0]
	got, err := json.Marshal(m)
	want := `{"line":1,"text":"bash: fork: Cannot allocate memory","kind":"shell-fork",` +
		`"meaning":"A shell could not fork for a command. The error is ENOMEM.",` +
		`"errno":"ENOMEM","cause":"commit","pid":null,"comm":"","bytes":null,"path":""}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

const hit = "bash: fork: Cannot allocate memory"

func TestLinesAreCountedHoweverTheyEnd(t *testing.T) {
	for in, want := range map[string][2]int{ // lines, and the line of the match
		"":                           {0, 0},
		"\n":                         {1, 0},
		"\n\n":                       {2, 0},
		"a":                          {1, 0},
		hit:                          {1, 1},
		hit + "\n":                   {1, 1},
		"\n" + hit + "\r\n\n":        {3, 2},
		"\x00\x00\n\xff\xff\n" + hit: {3, 3},
		strings.Repeat("x", maxLine-1) + "\n" + hit:     {2, 2},
		strings.Repeat("x", maxLine) + "\n" + hit:       {2, 2},
		strings.Repeat("x", maxLine+1) + "\n" + hit:     {2, 2},
		strings.Repeat("x", 5*maxLine) + "\n\n" + hit:   {3, 3},
		strings.Repeat("x", maxLine) + hit + "\n":       {1, 0}, // beyond what is looked at
		hit + " " + strings.Repeat("x", 5*maxLine):      {1, 1},
		hit + strings.Repeat("x", 5*maxLine) + "\nx\nx": {3, 1},
	} {
		n, line := 0, 0
		n, err := Scan(strings.NewReader(in), func(m Match) { line = m.Line })
		if got := [2]int{n, line}; err != nil || got != want {
			t.Errorf("%.60q, %d bytes: got %v, %v, want %v", in, len(in), got, err, want)
		}
	}
}

func TestTextIsCutOnARuneAndFitToPrint(t *testing.T) {
	for in, want := range map[string]string{
		hit + "\r\n":                           hit,
		"\x1b[1m" + hit + "\x1b[0m":            hit,
		"\x1b]0;title\x07" + hit:               "]0;title\uFFFD" + hit,
		"\x1b[31":                              "",
		"a\x00\x01\t" + hit:                    "a\uFFFD\uFFFD\t" + hit,
		"\xff\xff" + hit:                       "\uFFFD\uFFFD" + hit,
		"\u009b31m" + hit:                      "\uFFFD31m" + hit,
		hit + strings.Repeat("é", 300):         hit + strings.Repeat("é", (maxText-len(hit))/2),
		hit + "x" + strings.Repeat("é", 300):   hit + "x" + strings.Repeat("é", (maxText-len(hit)-1)/2),
		hit + strings.Repeat("\xff", 600):      hit + strings.Repeat("\uFFFD", (maxText-len(hit))/3),
		hit + "xy" + strings.Repeat("😀", 300):  hit + "xy" + strings.Repeat("😀", (maxText-len(hit)-2)/4),
		hit + strings.Repeat("x", maxText):     (hit + strings.Repeat("x", maxText))[:maxText],
		strings.Repeat("x", 600) + ": " + hit:  strings.Repeat("x", maxText),
		hit + strings.Repeat("\x1b[0mx", 1000): (hit + strings.Repeat("x", maxText))[:maxText],
	} {
		got := excerpt([]byte(in))
		if got != want {
			t.Errorf("%.80q: got %q, want %q", in, got, want)
		}
	}
}

func TestAnErrorInTheMiddle(t *testing.T) {
	broken := errors.New("broken")
	for _, in := range []string{hit + "\nsecond line\nthi", hit + "\nsecond line\n" + strings.Repeat("x", 2*maxLine)} {
		r := io.MultiReader(strings.NewReader(in), iotest.ErrReader(broken))
		matches := 0
		lines, err := Scan(r, func(Match) { matches++ })
		if lines != 3 || matches != 1 || !errors.Is(err, broken) {
			t.Errorf("%d lines, %d matches, %v", lines, matches, err)
		}
	}
	if lines, err := Scan(iotest.ErrReader(broken), func(Match) { t.Error("a match in nothing") }); lines != 0 || err != broken {
		t.Errorf("%d lines, %v", lines, err)
	}
}

func TestHowTheReaderCutsMakesNoDifference(t *testing.T) {
	var in strings.Builder
	for _, w := range wordings() {
		in.WriteString("an ordinary line\r\n" + w.line + "\n")
	}
	in.WriteString(strings.Repeat("y", maxLine+7) + "\n" + hit)
	want := scan(t, in.String())
	if len(want) != len(wordings())+1 {
		t.Fatalf("%d matches of %d lines", len(want), len(wordings())+1)
	}
	for name, r := range map[string]io.Reader{
		"a byte":         iotest.OneByteReader(strings.NewReader(in.String())),
		"half":           iotest.HalfReader(strings.NewReader(in.String())),
		"data and error": iotest.DataErrReader(strings.NewReader(in.String())),
	} {
		var got []Match
		if _, err := Scan(r, func(m Match) { got = append(got, m) }); err != nil {
			t.Error(name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

// What a Scan allocates does not depend on how much it reads, nor on how long
// the lines are.
func TestMemoryIsConstant(t *testing.T) {
	allocs := func(line string, n int) float64 {
		in := []byte(strings.Repeat(line, n))
		return testing.AllocsPerRun(5, func() {
			if _, err := Scan(bytes.NewReader(in), func(Match) { t.Error("a match") }); err != nil {
				t.Error(err)
			}
		})
	}
	for _, line := range []string{
		"Nov 22 22:14:05 db1 app[4120]: request served in 12 ms, forked from nothing\n",
		"connect() failed (11: Resource temporarily unavailable) while connecting to upstream\n", // a candidate
		strings.Repeat("no newline ", 4),
	} {
		if few, many := allocs(line, 10), allocs(line, 50_000); many > few+1 {
			t.Errorf("%q: %v allocations for 10 lines, %v for 50000", line, few, many)
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, w := range wordings() {
		f.Add([]byte(w.line))
	}
	for _, in := range surroundings() {
		f.Add([]byte("x\n" + in(hit) + "\n\x1b[3"))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		last, total := 0, bytes.Count(in, []byte("\n"))
		if len(in) > 0 && in[len(in)-1] != '\n' {
			total++
		}
		lines, err := Scan(bytes.NewReader(in), func(m Match) {
			if m.Line <= last || m.Line > total {
				t.Errorf("line %d of %d, after %d", m.Line, total, last)
			}
			last = m.Line
			for _, s := range []string{m.Text, m.Comm, m.Path} {
				if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
					t.Errorf("not fit to print: %q", s)
				}
			}
			if len(m.Text) > maxText {
				t.Errorf("a text of %d bytes", len(m.Text))
			}
			if m.Kind == "" || m.Meaning == "" || m.Cause == "" || m.Errno != nil && *m.Errno == "" {
				t.Errorf("%+v", m)
			}
		})
		if err != nil || lines != total {
			t.Errorf("%d lines of %d, %v", lines, total, err)
		}
	})
}
