# ruff: noqa: E501
"""Chinese, simplified; see `german` for the notation. Entries are found by the longest match."""

WORDS = """
是的|对 = yes; 不是|否 = no; 没有|没 = no; 并没有 = no; 不|并不|未 = not; 无 = without; 从不 = never
和|与|以及|还有 = and; 或|或者 = or; 但是|但|可是|然而|不过 = but; 虽然|尽管 = although; 因为|由于 = because; 所以|因此|于是 = so; 如果 = if; 只|只有|仅仅 = only; 也 = also; 而 = but
这个|这|那个|那 = the; 我 = i; 他 = he; 她 = she; 他们|她们 = they; 人 = person; 男人|男子 = man; 女人|女子 = woman; 的 = ; 了 = ; 着 = ; 很|非常|十分 = very; 可能|也许|或许 = perhaps; 似乎|好像|看起来 = seems
是 = is; 有 = there is; 看到|看见|能看到 = see; 听到|听见|能听到 = hear; 表明|显示|说明|表示|表现 = shows; 意味着 = means; 证明 = proves; 感到|觉得|感觉 = feels; 听起来 = sounds; 穿着|穿 = wearing; 无关|没有关系|与情绪无关 = is irrelevant
脸|面部|脸上 = face; 声音|嗓音|语气 = voice; 表情 = expression; 眼睛|双眼 = eyes; 目光 = gaze; 嘴|嘴巴|嘴角 = mouth; 眉毛|眉头|双眉 = brows; 额头 = forehead; 鼻子 = nose; 手|双手 = hands; 拳头|双拳|拳 = fists; 手臂|双臂 = arms; 肩膀 = shoulders; 手指 = finger
高兴|开心|快乐|愉快|喜悦|幸福 = happy; 伤心|悲伤|难过|悲痛 = sad; 生气|愤怒|恼怒|发怒 = angry; 害怕|恐惧|惊恐|惧怕 = afraid; 惊讶|吃惊|惊奇 = surprised; 厌恶|恶心 = disgusted; 平静|中性 = neutral
笑容|微笑|笑脸 = smile; 灿烂 = wide; 大笑|笑声 = laughter; 笑 = smile; 哭|哭泣|哭了 = crying; 眼泪|泪水|流泪 = tears; 抽泣|啜泣|呜咽 = sobbing; 叹气|叹息 = sigh; 尖叫 = scream; 大喊|喊叫 = shouting; 咆哮|低吼 = growling; 颤抖|发抖 = trembling; 呼吸 = breathing; 鼓掌|拍手 = clapping; 跳舞 = dancing; 唱歌 = singing
握紧|紧握|攥紧 = clenched; 皱起|皱着|紧皱|皱 = furrowed; 低垂|下垂 = lowered; 抬起|扬起 = raised; 交叉 = crossed; 张开 = open; 大 = wide; 响亮|大声 = loud; 粗暴|刺耳 = harsh; 缓慢|慢 = slow; 低沉|低 = low; 急促|快 = rapid; 突然 = sudden
红色|红 = red; 蓝色|蓝 = blue; 黄色|黄 = yellow; 绿色|绿 = green; 紫色 = purple; 黑色 = black; 白色 = white; 衬衫|衬衣|上衣 = shirt; 夹克 = jacket; 音乐 = music; 钢琴|钢琴曲 = piano music; 鼓声 = drum music; 雨|下雨|雨声 = rain; 鸟|鸟叫 = birds; 窗户|窗 = window; 植物 = plant; 灯 = lamp; 钟|时钟 = clock; 画 = painting; 狗 = dog; 咖啡 = coffee; 杯子|杯 = mug; 气球 = balloons
， = ,; 。 = .; ； = ,; ： = :; ！ = !; ？ = ?; 、 = ,
花 = flowers; 太阳镜|墨镜 = sunglasses; 眼镜 = glasses; 帽子 = hat; 领带 = tie; 裙子|连衣裙 = dress; 桌子 = table; 椅子 = chair; 门 = door; 汽车|车 = car; 树 = tree; 天空 = sky; 大海|海 = ocean; 头发 = hair; 墙 = wall; 书 = book; 电话|手机 = phone; 蜡烛 = candles; 跳|跳跃 = jumping; 低头 = bowed head; 紧张 = tense; 苍白 = pale; 湿润 = moist; 瞪 = glaring
"""
